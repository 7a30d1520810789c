// Steps that every rank does and any may fail at: all learn of the failure, none is
// left waiting.
#pragma once

#include <exception>
#include <string>

#include "comm/communicator.h"
#include "core/error.h"
#include "core/error_report.h"

namespace orrery::experiments {

/// An error that every rank has thrown alike: printed once, and nobody needs to be
/// stopped.
class AgreedError : public Error {
 public:
  using Error::Error;
};

/// Collective: runs `work` on this rank. When it failed on any rank, every rank throws
/// the error of the lowest one (its text and exit code). `work` must not contain a
/// collective that another rank would miss.
template <class Work>
void on_all_ranks(comm::Communicator& comm, Work&& work) {
  std::string problem;  // exit code and text
  try {
    work();
  } catch (const std::exception& error) {
    const ErrorReport report = describe_error(error);
    problem = std::to_string(report.exit_code) + report.text;
  }
  for (const std::string& text : comm.all_gather_bytes(problem)) {
    if (!text.empty()) throw AgreedError(text.substr(1), text.front() - '0');
  }
}

}  // namespace orrery::experiments
