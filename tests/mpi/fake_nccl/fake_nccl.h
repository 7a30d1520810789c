// NCCL's stand-in as tests see it: opened as the real one is, and told what to do.
#pragma once

#include <array>
#include <cstdlib>
#include <memory>
#include <string>

#include "comm/nccl_api.h"
#include "core/dynamic_library.h"

namespace orrery::testing_support {

/// The stand-in's file (the build's ORRERY_FAKE_NCCL) as NCCL's place. Leaves
/// $ORRERY_NCCL unset in the end.
class FakeNccl {
  DynamicLibrary library_;
  template <class F, class... Args>
  auto call(const char* name, Args... args) const {
    return library_.function<F>(name)(args...);
  }

 public:
  explicit FakeNccl(const char* file)
      : library_((setenv("ORRERY_NCCL", file, 1), comm::nccl::library_place())) {
    call<void()>("fake_reset");
  }
  ~FakeNccl() { unsetenv("ORRERY_NCCL"); }
  FakeNccl(const FakeNccl&) = delete;
  FakeNccl& operator=(const FakeNccl&) = delete;

  std::shared_ptr<const comm::nccl::Api> api() const {
    return std::make_shared<const comm::nccl::Api>(comm::nccl::library_place());
  }
  /// Names of the calls since the last reset, a space between two.
  std::string calls() const { return call<const char*()>("fake_calls"); }
  void reset() const { call<void()>("fake_reset"); }
  void set_version(int version) const { call<void(int)>("fake_version", version); }
  /// What asking for an id, any other call, and the question for errors bring from now
  /// on.
  void set_id_result(int result) const { call<void(int)>("fake_id_result", result); }
  void set_call_result(int result) const { call<void(int)>("fake_call_result", result); }
  void set_async_result(int result) const { call<void(int)>("fake_async_result", result); }
  /// From now on nothing ends.
  void stop() const { call<void()>("fake_never_ready"); }
  /// The id that the last group here was made with.
  std::string last_id() const {
    std::array<char, 128> id{};
    call<void(char*)>("fake_last_id", id.data());
    return {id.data(), id.size()};
  }
};

}  // namespace orrery::testing_support
