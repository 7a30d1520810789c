// A library for tests to open at run time.
extern "C" int small_answer() { return 42; }
