// Host memory with signed sizes: a count is an int64_t everywhere in Orrery, so a view
// and a container whose sizes and indices are int64_t save a conversion at each use.
// Both hold host memory only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

namespace orrery {

/// A view of `size` elements of T, owned by someone else, as std::span is. It converts
/// from every contiguous range (std::vector, std::array, std::span, Array) that
/// std::span would take, and to std::span. Copying copies the view. Indices are not
/// checked. Thread-safe as the memory that it views.
template <class T>
class Span {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;

  constexpr Span() = default;
  /// REQUIRES: `size` >= 0.
  constexpr Span(T* data, int64_t size) : data_(data), size_(size) {}
  template <class Range>
  requires(!std::is_same_v<std::remove_cvref_t<Range>, Span> &&
           std::ranges::contiguous_range<Range> && std::ranges::sized_range<Range> &&
           (std::ranges::borrowed_range<Range> || std::is_const_v<T>)&&std::is_convertible_v<
               std::remove_reference_t<std::ranges::range_reference_t<Range>> (*)[], T (*)[]>)
      // The requires clause leaves copies to the copy constructor.
      // NOLINTNEXTLINE(bugprone-forwarding-reference-overload)
      constexpr Span(Range&& range)
      : data_(std::ranges::data(range)), size_(static_cast<int64_t>(std::ranges::size(range))) {}

  constexpr T* data() const { return data_; }
  constexpr int64_t size() const { return size_; }
  constexpr int64_t size_bytes() const { return size_ * int64_t{sizeof(T)}; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T* begin() const { return data_; }
  constexpr T* end() const { return data_ + size_; }
  constexpr T& operator[](int64_t i) const { return data_[i]; }
  constexpr T& front() const { return data_[0]; }
  constexpr T& back() const { return data_[size_ - 1]; }

  /// Parts of the view. REQUIRES: they lie inside it.
  constexpr Span first(int64_t count) const { return {data_, count}; }
  constexpr Span last(int64_t count) const { return {data_ + (size_ - count), count}; }
  constexpr Span subspan(int64_t offset) const { return {data_ + offset, size_ - offset}; }
  constexpr Span subspan(int64_t offset, int64_t count) const { return {data_ + offset, count}; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

template <class Range>
Span(Range&&) -> Span<std::remove_reference_t<std::ranges::range_reference_t<Range>>>;

/// The memory of a view as bytes, as std::as_bytes() and std::as_writable_bytes() are.
template <class T>
Span<const std::byte> as_bytes(Span<T> view) {
  return {reinterpret_cast<const std::byte*>(view.data()), view.size_bytes()};
}
template <class T>
Span<std::byte> as_writable_bytes(Span<T> view) {
  return {reinterpret_cast<std::byte*>(view.data()), view.size_bytes()};
}

/// A std::vector whose sizes and indices are int64_t. `vector()` lends it to what wants
/// a std::vector.
template <class T>
class Array {
  static_assert(!std::is_same_v<T, bool>, "std::vector<bool> is no array: use uint8_t");

 public:
  using value_type = T;
  using iterator = typename std::vector<T>::iterator;
  using const_iterator = typename std::vector<T>::const_iterator;

  Array() = default;
  explicit Array(int64_t size) : items_(static_cast<size_t>(size)) {}
  Array(int64_t size, const T& value) : items_(static_cast<size_t>(size), value) {}
  Array(std::initializer_list<T> items) : items_(items) {}
  template <std::input_iterator Iterator>
  Array(Iterator first, Iterator last) : items_(first, last) {}
  Array(std::vector<T> items) : items_(std::move(items)) {}

  int64_t size() const { return static_cast<int64_t>(items_.size()); }
  bool empty() const { return items_.empty(); }
  T* data() { return items_.data(); }
  const T* data() const { return items_.data(); }
  T& operator[](int64_t i) { return items_[static_cast<size_t>(i)]; }
  const T& operator[](int64_t i) const { return items_[static_cast<size_t>(i)]; }
  T& front() { return items_.front(); }
  const T& front() const { return items_.front(); }
  T& back() { return items_.back(); }
  const T& back() const { return items_.back(); }
  iterator begin() { return items_.begin(); }
  iterator end() { return items_.end(); }
  const_iterator begin() const { return items_.begin(); }
  const_iterator end() const { return items_.end(); }

  void push_back(T item) { items_.push_back(std::move(item)); }
  template <class... Args>
  T& emplace_back(Args&&... args) {
    return items_.emplace_back(std::forward<Args>(args)...);
  }
  void pop_back() { items_.pop_back(); }
  template <class Range>
  void append(const Range& range) {
    items_.insert(items_.end(), std::begin(range), std::end(range));
  }
  void clear() { items_.clear(); }
  void reserve(int64_t size) { items_.reserve(static_cast<size_t>(size)); }
  void resize(int64_t size) { items_.resize(static_cast<size_t>(size)); }
  void resize(int64_t size, const T& value) { items_.resize(static_cast<size_t>(size), value); }
  void assign(int64_t size, const T& value) { items_.assign(static_cast<size_t>(size), value); }

  std::vector<T>& vector() { return items_; }
  const std::vector<T>& vector() const { return items_; }

  friend bool operator==(const Array&, const Array&) = default;

 private:
  std::vector<T> items_;
};

}  // namespace orrery

template <class T>
inline constexpr bool std::ranges::enable_borrowed_range<orrery::Span<T>> = true;
template <class T>
inline constexpr bool std::ranges::enable_view<orrery::Span<T>> = true;
