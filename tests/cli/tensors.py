"""Inputs of attend in HDF5, made with h5py; for the tests beside this file."""
import h5py
import numpy as np


def bf16_type():
    """The program's 16-bit float: sign 1, exponent 8, mantissa 7."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_precision(16)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


TYPES = {"f16": h5py.h5t.IEEE_F16LE, "f32": h5py.h5t.IEEE_F32LE, "f64": h5py.h5t.IEEE_F64LE, "bf16": bf16_type()}


def to_bf16(values):
    """Rounded to nearest even, as float32."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000).view(np.float32)


def rounded(values, dtype):
    """What attend computes with when a file holds these values in this type; float64."""
    if dtype == "bf16":
        return to_bf16(values).astype(np.float64)
    return np.asarray(values).astype(np.float16 if dtype == "f16" else np.float32).astype(np.float64)


def write(path, dtype="f32", documents=None, **arrays):
    """One dataset per array, in this type, with values that the type holds exactly (f64: kept in full)."""
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            exact = np.asarray(values, np.float64) if dtype == "f64" else rounded(values, dtype)
            space = h5py.h5s.create_simple(exact.shape)
            dataset = h5py.h5d.create(file.id, name.encode(), TYPES[dtype], space)
            if exact.size:
                dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(exact))
        if documents is not None:
            file["documents"] = np.asarray(documents, np.int64)
    return path


def random_tensors(random, queries, keys, heads, kv_heads, channels, value_channels, dout=False):
    """q, k, v (and dout) with scores of standard deviation about 1."""
    shapes = {"q": (queries, heads, channels), "k": (keys, kv_heads, channels), "v": (keys, kv_heads, value_channels)}
    if dout:
        shapes["dout"] = (queries, heads, value_channels)
    return {name: random.standard_normal(shape) for name, shape in shapes.items()}


def element(dataset):
    """f16, bf16, f32, f64, u32 ...: what the file really holds."""
    kind = dataset.id.get_type()
    if isinstance(kind, h5py.h5t.TypeFloatID):
        by_fields = {(31, 23, 8, 0, 23): "f32", (63, 52, 11, 0, 52): "f64", (15, 10, 5, 0, 10): "f16", (15, 7, 8, 0, 7): "bf16"}
        return by_fields[kind.get_fields()]
    sign = "i" if kind.get_sign() == h5py.h5t.SGN_2 else "u"
    return f"{sign}{8 * kind.get_size()}"
