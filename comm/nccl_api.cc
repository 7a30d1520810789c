#include "comm/nccl_api.h"

#include <mutex>

#include "core/error.h"

namespace orrery::comm::nccl {
namespace {

/// The library's version, which must be known before its other functions are looked up.
int checked_version(const DynamicLibrary& library) {
  int version = 0;
  const Result result = library.function<Result(int*)>("ncclGetVersion")(&version);
  if (result != Result::kSuccess)
    fail("NCCL ({}) does not say its version: {}", library.path(), static_cast<int>(result));
  if (version < kOldestVersion) {
    fail("NCCL ({}) is of version {}; {} is the oldest that works: {}, or set {} to a newer one",
         library.path(), version_text(version), version_text(kOldestVersion),
         library_place().advice, library_place().variable);
  }
  return version;
}

}  // namespace

std::string version_text(int version) {
  // Two digits of the minor version since 2.9; before, one.
  const int major_unit = version < 10000 ? 1000 : 10000;
  return fmt::format("{}.{}.{}", version / major_unit, version % major_unit / 100, version % 100);
}

Api::Api(const LibraryPlace& place)
    : library(place),
      version(checked_version(library)),
      get_unique_id(library.function<Result(UniqueId*)>("ncclGetUniqueId")),
      comm_init_rank_config(
          library.function<Result(Comm*, int, UniqueId, int, Config*)>("ncclCommInitRankConfig")),
      comm_get_async_error(library.function<Result(Comm, Result*)>("ncclCommGetAsyncError")),
      comm_finalize(library.function<Result(Comm)>("ncclCommFinalize")),
      comm_destroy(library.function<Result(Comm)>("ncclCommDestroy")),
      comm_abort(library.function<Result(Comm)>("ncclCommAbort")),
      get_error_string(library.function<const char*(Result)>("ncclGetErrorString")),
      get_last_error(library.function<const char*(Comm)>("ncclGetLastError")),
      group_start(library.function<Result()>("ncclGroupStart")),
      group_end(library.function<Result()>("ncclGroupEnd")),
      send(library.function<Result(const void*, size_t, DataType, int, Comm, CudaStream)>(
          "ncclSend")),
      receive(library.function<Result(void*, size_t, DataType, int, Comm, CudaStream)>("ncclRecv")),
      broadcast(
          library.function<Result(const void*, void*, size_t, DataType, int, Comm, CudaStream)>(
              "ncclBroadcast")),
      all_reduce(
          library.function<Result(const void*, void*, size_t, DataType, RedOp, Comm, CudaStream)>(
              "ncclAllReduce")) {}

LibraryPlace library_place() {
  return {.name = "NCCL",
          .file = "libnccl.so.2",
          .variable = "ORRERY_NCCL",
          .package_folder = "nvidia/nccl/lib",
          .advice = "install it (pip install nvidia-nccl-cu13)"};
}

std::shared_ptr<const Api> open_api() {
  static std::mutex mutex;
  static std::shared_ptr<const Api> api;
  const std::lock_guard lock(mutex);
  if (!api) api = std::make_shared<const Api>(library_place());
  return api;
}

}  // namespace orrery::comm::nccl
