// Options that the commands on a bare model share.
#pragma once

#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>

#include "core/context.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/parallel.h"
#include "kernels/numerics.h"
#include "tools/commands.h"

namespace orrery::tools {

struct ModelOptions {
  std::string folder;
  std::string device = "cpu";
  std::string dtype = "f32";
  int threads = 0;

  void add_to(CLI::App& command) {
    command
        .add_option(
            "--model", folder,
            "Hugging Face model folder, checkpoint, or run's folder (its newest good checkpoint)")
        ->required();
    command.add_option("--device", device,
                       "Where the model is: cpu; in a CUDA build also cuda, cuda:1; auto (cuda "
                       "where it is there, else cpu); cpu-dot16 (bf16 with the bits of an H100's "
                       "tensor cores); or debug (the CPU's kernels, on memory that nothing else "
                       "may touch; for tests of the program)");
    command.add_option("--dtype", dtype, "Type of the matrices in products: f32 or bf16")
        ->check(one_of({"f32", "bf16"}));
    command.add_option("--threads", threads, "CPU threads (default: all this process may use)")
        ->check(whole_number(0, 4096));
  }
  DType compute_dtype() const { return dtype == "bf16" ? DType::kBF16 : DType::kF32; }
  /// `local`: this process among those of its host that share the devices.
  Context context(LocalRank local = {}) const {
    Context ctx;
    ctx.device = device_from_name("--device", device, local);
    if (device == "auto" && local.rank == 0)
      spdlog::info("device: auto is {} ({})", device_name(ctx.device), auto_device(local).why);
    kernels::numerics_class(ctx.device, compute_dtype());  // one that the device computes in
    ctx.threads = threads > 0 ? std::min(threads, max_team_members()) : available_cpus();
    return ctx;
  }
};

}  // namespace orrery::tools
