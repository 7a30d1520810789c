// Stands in for NVIDIA's libnccl in tests: a library with NCCL's binary interface (its
// numbers are written out here once more) that moves host memory over MPI, never
// blocks, notes every call, and fails on demand. Groups of several ranks are of all
// ranks of MPI_COMM_WORLD; a group of one needs no MPI.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

enum : int { kSuccess = 0, kInvalidArgument = 4, kInvalidUsage = 5, kInProgress = 7 };
constexpr int kFloat32 = 7, kUint8 = 1, kSum = 0;

struct Id {
  char bytes[128];
};

/// The members of ncclConfig_t as of 2.18.
struct Config {
  size_t size;
  unsigned magic, version;
  int blocking, cga_cluster_size, min_ctas, max_ctas;
  const char* net_name;
  int split_share;
};

struct Comm {
  int ranks = 1;
  MPI_Comm mpi = MPI_COMM_NULL;
  std::vector<MPI_Request> requests;
  int polls_until_ready = 3;  // as the start of a group takes its time
};

std::string calls;  // names, a space between two
int groups_open = 0;
int version = 22809, id_result = kSuccess, call_result = kSuccess, async_result = kSuccess;
bool never_ready = false;
Id last_id;

int note(const char* name) {
  if (!calls.empty()) calls += ' ';
  calls += name;
  return call_result;
}

/// Outside of a group a call would have to be ended by itself; ours never stand there.
int in_group(const char* name, Comm* comm) {
  if (const int result = note(name); result != kSuccess) return result;
  return groups_open == 1 && comm != nullptr ? kSuccess : kInvalidUsage;
}

MPI_Request* new_request(Comm* comm) { return &comm->requests.emplace_back(MPI_REQUEST_NULL); }

Comm* group_comm = nullptr;  // of the calls of the open group

}  // namespace

extern "C" {

// What tests set and read.
void fake_reset() {
  calls.clear();
  version = 22809;
  id_result = call_result = async_result = kSuccess;
  never_ready = false;
}
const char* fake_calls() { return calls.c_str(); }
void fake_version(int value) { version = value; }
void fake_id_result(int value) { id_result = value; }
void fake_call_result(int value) { call_result = value; }
void fake_async_result(int value) { async_result = value; }
void fake_never_ready() { never_ready = true; }
void fake_last_id(char* into) { std::memcpy(into, last_id.bytes, sizeof last_id.bytes); }

// The library's names.
// NOLINTBEGIN(readability-identifier-naming)
int ncclGetVersion(int* value) {
  *value = version;
  return kSuccess;
}

int ncclGetUniqueId(Id* id) {
  note("id");
  if (id_result != kSuccess) return id_result;
  const long long now = std::chrono::steady_clock::now().time_since_epoch().count();
  for (size_t i = 0; i < sizeof id->bytes; ++i)  // zero bytes among them, as in a real one
    id->bytes[i] = static_cast<char>(i % 5 == 0 ? 0 : (now >> (i % 7 * 8)) + static_cast<int>(i));
  return kSuccess;
}

int ncclCommInitRankConfig(Comm** comm, int ranks, Id id, int rank, Config* config) {
  if (const int result = note("init"); result != kSuccess) return result;
  last_id = id;
  const bool usual =
      config->size == sizeof(Config) && config->magic == 0xcafebeef && config->version == 21801 &&
      config->blocking == 0 && config->cga_cluster_size == INT_MIN && config->min_ctas == INT_MIN &&
      config->max_ctas == INT_MIN && config->net_name == nullptr && config->split_share == INT_MIN;
  if (!usual || rank < 0 || rank >= ranks) return kInvalidArgument;
  *comm = new Comm{.ranks = ranks};
  if (ranks > 1) {
    int all = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &all);
    if (all != ranks) return kInvalidUsage;
    MPI_Comm_dup(MPI_COMM_WORLD, &(*comm)->mpi);
  }
  return kInProgress;
}

int ncclCommGetAsyncError(Comm* comm, int* result) {
  *result = async_result;
  if (async_result != kSuccess) return kSuccess;
  if (never_ready) {
    *result = kInProgress;
  } else if (comm->polls_until_ready > 0) {
    --comm->polls_until_ready;
    *result = kInProgress;
  } else if (!comm->requests.empty()) {
    int done = 0;
    MPI_Testall(static_cast<int>(comm->requests.size()), comm->requests.data(), &done,
                MPI_STATUSES_IGNORE);
    if (done != 0) comm->requests.clear();
    *result = done != 0 ? kSuccess : kInProgress;
  }
  return kSuccess;
}

int ncclCommFinalize(Comm* comm) {
  note("finalize");
  comm->polls_until_ready = 2;
  return kInProgress;
}

int ncclCommDestroy(Comm* comm) {
  note("destroy");
  if (comm->ranks > 1) MPI_Comm_free(&comm->mpi);
  delete comm;
  return kSuccess;
}

int ncclCommAbort(Comm* comm) {
  note("abort");
  for (MPI_Request& request : comm->requests) {
    MPI_Cancel(&request);
    MPI_Request_free(&request);
  }
  delete comm;
  return kSuccess;
}

const char* ncclGetErrorString(int result) {
  switch (result) {
    case 1:
      return "unhandled cuda error";
    case 2:
      return "unhandled system error";
    case 6:
      return "remote process exited or there was a network error";
    case kInProgress:
      return "NCCL operation in progress";
    default:
      return "another error";
  }
}

const char* ncclGetLastError(Comm*) { return "first line\nsecond line"; }

int ncclGroupStart() {
  ++groups_open;
  group_comm = nullptr;
  note("(");
  return kSuccess;
}

int ncclGroupEnd() {
  --groups_open;
  note(")");
  return group_comm != nullptr && !group_comm->requests.empty() ? kInProgress : kSuccess;
}

int ncclSend(const void* data, size_t count, int type, int peer, Comm* comm, void*) {
  if (const int result = in_group("send", comm); result != kSuccess) return result;
  if (type != kUint8) return kInvalidArgument;
  group_comm = comm;
  MPI_Isend(data, static_cast<int>(count), MPI_BYTE, peer, 0, comm->mpi, new_request(comm));
  return kSuccess;
}

int ncclRecv(void* data, size_t count, int type, int peer, Comm* comm, void*) {
  if (const int result = in_group("receive", comm); result != kSuccess) return result;
  if (type != kUint8) return kInvalidArgument;
  group_comm = comm;
  MPI_Irecv(data, static_cast<int>(count), MPI_BYTE, peer, 0, comm->mpi, new_request(comm));
  return kSuccess;
}

int ncclBroadcast(const void* send, void* receive, size_t count, int type, int root, Comm* comm,
                  void*) {
  if (const int result = in_group("broadcast", comm); result != kSuccess) return result;
  if (type != kUint8 || send != receive) return kInvalidArgument;
  group_comm = comm;
  if (comm->ranks > 1) {
    MPI_Ibcast(receive, static_cast<int>(count), MPI_BYTE, root, comm->mpi, new_request(comm));
  }
  return kSuccess;
}

int ncclAllReduce(const void* send, void* receive, size_t count, int type, int operation,
                  Comm* comm, void*) {
  if (const int result = in_group("all_reduce", comm); result != kSuccess) return result;
  if (type != kFloat32 || operation != kSum || send != receive) return kInvalidArgument;
  group_comm = comm;
  if (comm->ranks > 1) {
    MPI_Iallreduce(MPI_IN_PLACE, receive, static_cast<int>(count), MPI_FLOAT, MPI_SUM, comm->mpi,
                   new_request(comm));
  }
  return kSuccess;
}

// NOLINTEND(readability-identifier-naming)
}  // extern "C"
