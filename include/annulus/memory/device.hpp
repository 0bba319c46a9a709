#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "annulus/memory/rows.hpp"

namespace annulus {

/// Where arrays live. One rank uses one device. Not thread-safe unless said so; CpuDevice is.
/// A device may work later than it is told, but in the order it is told; what lies in host memory when a call returns
/// is there, and finish() waits for everything. Only the device reads or writes its memory, and whoever works for it
/// (kernels, transports): the code between them holds pointers and never looks behind them.
class Device {
 public:
  virtual ~Device() = default;
  virtual Place place() const = 0;
  virtual std::string name() const = 0;
  /// At least `bytes` bytes, aligned to 64. Throws Error (fit) when there is not enough memory.
  virtual std::byte* allocate(Index bytes) = 0;
  virtual void release(std::byte* memory, Index bytes) noexcept = 0;
  virtual void zero(std::byte* memory, Index bytes) = 0;
  /// Within this device or between it and the host; done when it returns.
  virtual void copy(std::byte* to, const std::byte* from, Index bytes) = 0;

  /// As the functions of these names below, for rows of this device; copy_rows also between it and the host.
  virtual void convert(const Rows& from, const Rows& to);
  virtual void copy_rows(const Rows& from, const Rows& to);
  virtual void clear(const Rows& rows);
  virtual void add(const Rows& from, const Rows& to);
  /// The rank's threads, when its device works with them; one until told.
  virtual void use_threads(int /*threads*/) {}
  /// Waits until everything asked for is done. Throws Error (runtime) when some of it failed.
  virtual void finish() {}
  /// Waits until what had been asked for at the last call is done: who calls it between portions of work is one of them
  /// ahead, and knows how far the work is.
  virtual void pace() {}
};

/// Plain host memory. A rank's threads clear, copy and add long rows together, so that not one of them alone touches all
/// pages first. Some of what was released last is kept for the next pass, which allocates much the same again: pages that
/// the system has just cleared cost as much as using them.
class CpuDevice final : public Device {
 public:
  CpuDevice() = default;
  CpuDevice(const CpuDevice&) = delete;
  CpuDevice& operator=(const CpuDevice&) = delete;
  ~CpuDevice() override;
  Place place() const override { return Place::cpu; }
  std::string name() const override;
  std::byte* allocate(Index bytes) override;
  void release(std::byte* memory, Index bytes) noexcept override;
  void zero(std::byte* memory, Index bytes) override;
  void copy(std::byte* to, const std::byte* from, Index bytes) override;
  void convert(const Rows& from, const Rows& to) override;
  void copy_rows(const Rows& from, const Rows& to) override;
  void clear(const Rows& rows) override;
  void add(const Rows& from, const Rows& to) override;
  void use_threads(int threads) override;

 private:
  template <class Work>
  void in_portions(const Rows& rows, const Work& work) const;
  std::byte* take_kept(std::size_t bytes);
  bool keep(std::byte* memory, std::size_t bytes) noexcept;
  void drop_oldest() noexcept;
  void give_back() noexcept;
  std::mutex mutex_;
  struct Piece {
    std::byte* memory;
    std::size_t bytes;  // in whole units
  };
  std::vector<Piece> kept_;  // in the order in which they were released
  std::size_t kept_bytes_ = 0;
  std::unordered_map<std::byte*, std::size_t> longer_;  // allocated, and so many bytes long: more than was asked for
  int threads_ = 1;
};

/// Owns rows; move-only; freed by the device that made it. The device must outlive it.
class Array {
 public:
  Array() = default;
  /// Dense rows, not initialised. Throws Error (fit) when they cannot be had.
  Array(Device& device, DType type, Index tokens, Index heads, Index channels);
  /// Dense rows of zeros.
  static Array zeros(Device& device, DType type, Index tokens, Index heads, Index channels);
  Array(Array&& other) noexcept;
  Array& operator=(Array&& other) noexcept;
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array();

  const Rows& rows() const { return rows_; }
  operator const Rows&() const { return rows_; }  // NOLINT: an Array is its rows
  /// The elements as numbers, CPU only.
  template <class T>
  std::span<T> elements() const {
    return {reinterpret_cast<T*>(rows_.data), static_cast<std::size_t>(rows_.tokens * rows_.heads * rows_.channels)};
  }

 private:
  Device* device_ = nullptr;
  Rows rows_;
};

/// Copies and converts element by element between CPU rows of the same shape (rounding to nearest even).
/// Throws Error (usage) when shapes differ.
void convert(const Rows& from, const Rows& to);
/// Copies rows of the same shape and type between CPU rows that may have different pitches.
void copy_rows(const Rows& from, const Rows& to);
/// Sets CPU rows to zero, gaps untouched.
void clear(const Rows& rows);
/// to += from, f32 or f64, same shape and type, CPU.
void add(const Rows& from, const Rows& to);

}  // namespace annulus
