// What a process does when nobody reads its output any more (`| head -1`, a terminal
// that is gone).
#pragma once

namespace orrery {

/// Writing to a closed pipe ends the process without a word, as a listing should;
/// whatever was inherited.
void end_on_closed_pipes();

/// Writing to a closed pipe fails and does not end the process: for what goes on
/// without its reader.
void ignore_closed_pipes();

/// Nobody will ever read what is written to this descriptor: a pipe, a socket or a
/// terminal without its other end. A full disk is none of these.
bool reader_is_gone(int fd);

}  // namespace orrery
