"""Dimensions in result files, as netCDF has them; for the tests beside this file."""
import h5py

BARE = b"This is a netCDF dimension but not a netCDF variable."


def is_scale(dataset):
    return h5py.h5ds.is_scale(dataset.id)


def is_bare(dataset):
    """A scale without values, which says how long a dimension is."""
    return is_scale(dataset) and dataset.attrs["NAME"].startswith(BARE)


def datasets(file):
    """The names of all datasets that hold something."""
    names = set()
    file.visititems(lambda name, it: names.add(name) if isinstance(it, h5py.Dataset) and not is_bare(it) else None)
    return names
