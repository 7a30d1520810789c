// NCCL as this program knows it: the functions and numbers that it uses of the
// library's binary interface, as of version 2.18, which later versions keep. The
// library is opened at run time (core/dynamic_library.h), and none of its headers is
// needed to build. Only files named nccl_* use this.
#pragma once

#include <array>
#include <climits>
#include <cstddef>
#include <memory>
#include <string>

#include "core/dynamic_library.h"

namespace orrery::comm::nccl {

/// The oldest version that is used, as the library writes it: 2.18.1. It is the first
/// that has all of what is below.
inline constexpr int kOldestVersion = 21801;

/// "2.18.1"
std::string version_text(int version);

enum class Result : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,  ///< a peer has gone, or the network to it
  kInProgress = 7    ///< not yet known; only of communicators that do not block
};

enum class DataType : int { kUint8 = 1, kFloat32 = 7 };
enum class RedOp : int { kSum = 0 };

/// Names a group of ranks that is about to be made. One rank gets it from the library
/// and gives it to the others.
struct UniqueId {
  std::array<char, 128> bytes{};
};
static_assert(sizeof(UniqueId) == 128);

/// What a communicator is made with; the layout of 2.18. `size` and `version` tell
/// later libraries which members are there.
struct Config {
  static constexpr int kUndefined = INT_MIN;
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = kOldestVersion;
  int blocking = kUndefined;
  int cga_cluster_size = kUndefined;
  int min_ctas = kUndefined;
  int max_ctas = kUndefined;
  const char* net_name = nullptr;
  int split_share = kUndefined;
};

struct CommOpaque;
using Comm = CommOpaque*;
using CudaStream = void*;

/// The library's functions.
struct Api {
  /// Error when the library cannot be opened, lacks a function or is too old.
  explicit Api(const LibraryPlace& place);

  const DynamicLibrary library;
  const int version;
  Result (*const get_unique_id)(UniqueId* id);
  Result (*const comm_init_rank_config)(Comm* comm, int ranks, UniqueId id, int rank,
                                        Config* config);
  Result (*const comm_get_async_error)(Comm comm, Result* error);
  Result (*const comm_finalize)(Comm comm);
  Result (*const comm_destroy)(Comm comm);
  Result (*const comm_abort)(Comm comm);
  const char* (*const get_error_string)(Result result);
  const char* (*const get_last_error)(Comm comm);
  Result (*const group_start)();
  Result (*const group_end)();
  Result (*const send)(const void* data, size_t count, DataType type, int peer, Comm comm,
                       CudaStream stream);
  Result (*const receive)(void* data, size_t count, DataType type, int peer, Comm comm,
                          CudaStream stream);
  Result (*const broadcast)(const void* send, void* receive, size_t count, DataType type, int root,
                            Comm comm, CudaStream stream);
  Result (*const all_reduce)(const void* send, void* receive, size_t count, DataType type,
                             RedOp operation, Comm comm, CudaStream stream);
};

/// Where the library may be: $ORRERY_NCCL, the loader's places, CUDA's, a Python's.
LibraryPlace library_place();

/// The library, opened at the first call and shared from then on. Error as Api's, every
/// time. Thread-safe.
std::shared_ptr<const Api> open_api();

}  // namespace orrery::comm::nccl
