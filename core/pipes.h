// What a process does when nobody reads its output any more (`| head -1`, a terminal
// that is gone).
#pragma once

namespace orrery {

/// From now on, writing to a closed pipe ends the process without a word, as a listing
/// should. Replaces whatever the process inherited.
void end_on_closed_pipes();

/// From now on, writing to a closed pipe fails and does not end the process: for work
/// that goes on without its reader.
void ignore_closed_pipes();

/// True when nobody will ever read what is written to this descriptor: a pipe, a socket
/// or a terminal without its other end. A full disk is none of these.
bool reader_is_gone(int fd);

}  // namespace orrery
