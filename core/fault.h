// Fault injection, for tests and for trying out how a cluster copes. ORRERY_FAULT names
// where something goes wrong and how; unset, a fault point costs the check of one bool.
// Points are named in one table (kFaultPoints) and placed where the real thing happens.
//
//   ORRERY_FAULT=point:action[@N|@N+][,rank=R][;...]
//
//   N            at the Nth time that this process comes by (default: the first time;
//                slow: every time); a process that is started again counts anew
//   N+           at the Nth time and at every time after it
//   R            only on this rank
//   crash        SIGKILL
//   hang         never goes on
//   slow         waits 100 ms
//   error        throws an Error
//   torn         writes half of the bytes, then crashes
//   short-read   half of the bytes are there
//   enospc       the disk is full
//   corrupt      one bit is wrong
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace orrery {

enum class FaultPoint : uint8_t {
  kCheckpointCopy,
  kCheckpointWrite,
  kCheckpointPublish,
  kCheckpointRemove,
  kCheckpointRead,
  kFileWrite,
  kRolloutWrite,
  kMetricsWrite,
  kEngineStep,
  kLeaseSend,
  kTrajectorySend,
  kWeightsPublish,
  kCollectiveMove,
  kLearnerUpdate,
  kOptimizerStep,
};

enum class FaultAction : uint8_t {
  kNone,
  kCrash,
  kHang,
  kSlow,
  kError,
  kTorn,
  kShortRead,
  kNoSpace,
  kCorrupt
};

constexpr uint32_t fault_bit(FaultAction action) { return 1u << static_cast<uint32_t>(action); }

struct FaultPointInfo {
  FaultPoint point;
  std::string_view name, meaning;
  uint32_t actions;  ///< bits: fault_bit()
};

inline constexpr uint32_t kFaultAnywhere =
    fault_bit(FaultAction::kCrash) | fault_bit(FaultAction::kHang) | fault_bit(FaultAction::kSlow) |
    fault_bit(FaultAction::kError);
inline constexpr uint32_t kFaultWriting =
    kFaultAnywhere | fault_bit(FaultAction::kTorn) | fault_bit(FaultAction::kNoSpace);
inline constexpr uint32_t kFaultSending = kFaultAnywhere | fault_bit(FaultAction::kCorrupt);

/// Every point, in the enumeration's order.
inline constexpr std::array kFaultPoints = {
    FaultPointInfo{FaultPoint::kCheckpointCopy, "checkpoint.copy",
                   "weights and moments are copied for a save; the step waits", kFaultAnywhere},
    FaultPointInfo{
        FaultPoint::kCheckpointWrite, "checkpoint.write",
        "a piece (8 MiB at most) of a rank's checkpoint file is written, in the background",
        kFaultWriting | fault_bit(FaultAction::kCorrupt)},
    FaultPointInfo{FaultPoint::kCheckpointPublish, "checkpoint.publish",
                   "a checkpoint is whole and durable; its rename comes next", kFaultAnywhere},
    FaultPointInfo{FaultPoint::kCheckpointRemove, "checkpoint.remove",
                   "an old checkpoint is out of the way; its removal comes next", kFaultAnywhere},
    FaultPointInfo{
        FaultPoint::kCheckpointRead, "checkpoint.read",
        "a file of a checkpoint is verified before its use",
        kFaultAnywhere | fault_bit(FaultAction::kShortRead) | fault_bit(FaultAction::kCorrupt)},
    FaultPointInfo{FaultPoint::kFileWrite, "file.write",
                   "a small file (manifest, config, rollouts) is written and renamed",
                   kFaultWriting},
    FaultPointInfo{FaultPoint::kRolloutWrite, "rollout.write",
                   "a step's samples are about to be written", kFaultAnywhere},
    FaultPointInfo{FaultPoint::kMetricsWrite, "metrics.write", "a line goes to metrics.jsonl",
                   kFaultWriting},
    FaultPointInfo{FaultPoint::kEngineStep, "engine.step",
                   "an actor generates: one step of its engine (corrupt: a recorded log-prob)",
                   kFaultSending},
    FaultPointInfo{FaultPoint::kLeaseSend, "lease.send", "a lease, or the request for one, is sent",
                   kFaultSending},
    FaultPointInfo{FaultPoint::kTrajectorySend, "trajectory.send",
                   "finished groups are sent, to rank 0 or from it to the learners", kFaultSending},
    FaultPointInfo{FaultPoint::kWeightsPublish, "weights.publish",
                   "new weights go to the actors (placement: split)", kFaultSending},
    FaultPointInfo{FaultPoint::kCollectiveMove, "collective.move",
                   "every rank has come to a collective; its data moves next", kFaultAnywhere},
    FaultPointInfo{FaultPoint::kLearnerUpdate, "learner.update",
                   "an update's gradients are summed; the optimizer comes next", kFaultAnywhere},
    FaultPointInfo{FaultPoint::kOptimizerStep, "optimizer.step",
                   "this rank's slice is updated; gathering the weights comes next",
                   kFaultAnywhere},
};

/// Whether any fault is armed. Written by arm_faults() only.
inline bool faults_armed = false;

/// Arms the faults that `text` (of ORRERY_FAULT) names, none when it is empty, in place
/// of those armed before. A usage Error names an unknown point or action and the known
/// ones. Call it while no other thread runs.
void arm_faults(std::string_view text);

/// Sets this process's rank, for rules with rank=. It is 0 until then.
void set_fault_rank(int rank);

/// Counts the visit and carries out what is due: crash, hang and slow here, error by
/// throwing. Returns the actions that only the caller can carry out. Thread-safe.
FaultAction fault_reached(FaultPoint point);

/// Call it where the thing that the point stands for happens. Returns kNone, or one of
/// kTorn, kShortRead, kNoSpace and kCorrupt where the table allows it.
inline FaultAction fault_point(FaultPoint point) {
  if (!faults_armed) [[likely]]
    return FaultAction::kNone;
  return fault_reached(point);
}

/// Ends this process as `kill -9` does.
[[noreturn]] void fault_crash();

/// Points, meanings and actions as `orrery config --faults` prints them.
std::string describe_faults();

}  // namespace orrery
