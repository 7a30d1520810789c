// Programs that answer, and all the ways in which they do not. Each is a line of shell.
#include "actors/worker_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "core/process.h"
#include "tests/support/scratch.h"

namespace orrery::actors {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;
using testing_support::error_of;
using testing_support::ScratchFolder;
using State = WorkerPool::State;

/// Answers each request with its id and its member "say", else with what "answer"
/// holds.
constexpr const char* kEcho = R"(python3 -c '
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    exec(request.get("do", ""))
    print(json.dumps({"id": request["id"], "said": request.get("say", 0)}), flush=True)
')";

struct Answer {
  std::shared_ptr<const WorkerPool::Request> request;
  std::shared_ptr<std::string> said = std::make_shared<std::string>();
};

Answer ask(WorkerPool& pool, const std::string& rest) {
  Answer answer;
  answer.request = pool.submit(rest, [said = answer.said](const std::vector<JsonMember>& members) {
    const JsonMember* found = find_member(members, "said");
    if (found == nullptr) fail("says nothing");
    *said = found->value;
  });
  return answer;
}

Answer say(WorkerPool& pool, int what) { return ask(pool, fmt::format("\"say\": {}}}", what)); }
Answer make_do(WorkerPool& pool, const std::string& python) {
  return ask(pool, fmt::format("\"do\": \"{}\"}}", python));
}

/// Until all are done; 20 seconds at most.
void settle(WorkerPool& pool, const std::vector<Answer>& answers) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (const Answer& answer : answers) {
    while (answer.request->state == State::kInWork && std::chrono::steady_clock::now() < end)
      pool.poll(milliseconds(100));
  }
}

WorkerPoolConfig config(const std::string& command, int64_t workers = 1) {
  WorkerPoolConfig config;
  config.command = command;
  config.workers = workers;
  config.timeout_s = 5;
  config.start_timeout_s = 10;
  return config;
}

TEST(WorkerPool, AnswersComeBackToTheirRequests) {
  WorkerPool pool(config(kEcho, 3));
  std::vector<Answer> answers;
  for (int i = 0; i < 200; ++i) answers.push_back(say(pool, i));
  settle(pool, answers);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(*answers[static_cast<size_t>(i)].said, std::to_string(i));
  EXPECT_EQ(pool.take_failure_text(), "");
}

TEST(WorkerPool, ARequestThatIsLargeGoesThroughWhileTheWorkerDoesNotRead) {
  WorkerPool pool(config(kEcho));
  const Answer answer =
      ask(pool, fmt::format("\"say\": 3, \"more\": \"{}\"}}", std::string(8 << 20, 'x')));
  settle(pool, {answer});
  EXPECT_EQ(*answer.said, "3");
}

TEST(WorkerPool, WhatFailsOnceIsSentToAnotherProcess) {
  const ScratchFolder folder;
  const std::string once = (folder.path() / "once").string();
  // Dies at the third request of its life, whichever that is.
  const std::string dies =
      "if not hasattr(sys, 'n'): sys.n = 0\\nsys.n += 1\\nif sys.n == 3: sys.exit(7)";
  WorkerPool pool(config(kEcho));
  std::vector<Answer> answers;
  for (int i = 0; i < 10; ++i) answers.push_back(make_do(pool, dies));
  settle(pool, answers);
  for (const Answer& answer : answers) EXPECT_EQ(answer.request->state, State::kAnswered);
  EXPECT_THAT(pool.take_failure_text(), AllOf(HasSubstr("4 request(s) failed, 0 of them for good"),
                                              HasSubstr("ended with exit status 7")));
  EXPECT_EQ(pool.take_failure_text(), "");
}

/// What becomes of one request that does this, after one that was answered; and of one
/// that comes after it.
void expect_dropped(const std::string& python, const std::string& why, double timeout = 5) {
  WorkerPoolConfig c = config(kEcho);
  c.timeout_s = timeout;
  c.retries = 0;
  WorkerPool pool(c);
  settle(pool, {say(pool, 1)});
  const Answer bad = make_do(pool, python), good = say(pool, 2);
  settle(pool, {bad, good});
  EXPECT_EQ(bad.request->state, State::kDropped) << python;
  EXPECT_THAT(bad.request->why, HasSubstr(why)) << python;
  EXPECT_EQ(*good.said, "2") << python;
  EXPECT_THAT(pool.take_failure_text(), HasSubstr("1 request(s) failed, 1 of them for good"))
      << python;
}

TEST(WorkerPool, NonsenseIsDroppedWithTheReason) {
  expect_dropped("sys.exit(3)", "ended with exit status 3");
  expect_dropped("import os; os.kill(os.getpid(), 11)", "ended with signal 11");
  expect_dropped("raise KeyError('truth')", "KeyError: 'truth'");
  expect_dropped("print('debug', flush=True)",
                 "is not valid JSON (stdout is for answers: print to stderr)");
  expect_dropped("print('[1]', flush=True)", "is not a JSON object");
  expect_dropped("print('{}', flush=True)", "has no \"id\"");
  expect_dropped("print(json.dumps({'id': 0, 'said': 5}), flush=True)", "has the id 0 and not");
  expect_dropped("print(json.dumps({'id': request['id'], 'said': float('nan')}), flush=True)",
                 "which has no NaN and no Infinity");
  expect_dropped(
      "print('{\\\"id\\\": ' + str(request['id']) + ', \\\"said\\\": 1e999}', flush=True)",
      "is not valid JSON");
  expect_dropped("print(json.dumps({'id': request['id']}), flush=True)", "says nothing");
  expect_dropped("sys.stdout.buffer.write(b'\\\\xff\\\\n'); sys.stdout.flush()",
                 "is not valid JSON");
  expect_dropped("print('{\\\"id\\\": 2, \\\"sa', end='', flush=True); import os; os._exit(0)",
                 "ended with exit status 0 in the middle of an answer");
  expect_dropped("import time; time.sleep(60)", "did not answer within 0.5 s", 0.5);
  expect_dropped("print('[' * 1000000, flush=True)", "is not valid JSON");
}

TEST(WorkerPool, DeepNestingThatIsValidCostsNothing) {
  WorkerPool pool(config(kEcho));
  const Answer deep = make_do(
      pool,
      "print('{\\\"id\\\":' + str(request['id']) + ',\\\"said\\\":' + '[' * 1000000 + ']' * "
      "1000000 + '}', flush=True); request = json.loads(sys.stdin.readline())");
  settle(pool, {deep});
  EXPECT_EQ(deep.request->state, State::kAnswered);
  EXPECT_EQ(deep.said->size(), 2000000u);
  const Answer next = say(pool, 4);
  settle(pool, {next});
  EXPECT_EQ(next.request->state, State::kAnswered);
}

TEST(WorkerPool, EndlessOutputIsNeverStored) {
  const auto resident = [] {
    std::ifstream file("/proc/self/statm");
    long pages = 0, kept = 0;
    file >> pages >> kept;
    return kept * 4096;
  };
  WorkerPoolConfig c = config(kEcho);
  c.retries = 0;
  WorkerPool pool(c);
  settle(pool, {say(pool, 1)});
  const long before = resident();
  const Answer garbage = make_do(pool, "while True: sys.stdout.write('x' * 1000000)");
  settle(pool, {garbage});
  EXPECT_THAT(garbage.request->why, HasSubstr("wrote an answer of more than 16 MiB"));
  const Answer flood =
      make_do(pool, "for i in range(200): sys.stderr.write('noise %d\\\\n' % i * 100000)");
  settle(pool, {flood});
  EXPECT_EQ(flood.request->state, State::kAnswered);
  EXPECT_LT(resident() - before, 500 << 20);  // AddressSanitizer keeps what was freed
}

TEST(WorkerPool, ASecondAnswerIsNeverTakenForTheNextRequest) {
  WorkerPool pool(config(kEcho));
  std::vector<Answer> answers = {say(pool, 1)};
  answers.push_back(
      make_do(pool, "print(json.dumps({'id': request['id'], 'said': 77}), flush=True)"));
  for (int i = 2; i < 6; ++i) answers.push_back(say(pool, i));
  settle(pool, answers);
  EXPECT_EQ(*answers[1].said, "77");
  for (size_t i = 2; i < 6; ++i) EXPECT_EQ(*answers[i].said, std::to_string(i));
}

TEST(WorkerPool, ACommandThatCannotRunIsAUsageErrorAtOnce) {
  for (const char* command : {"no-such-program --x", "/dev/null", "exit 127"}) {
    WorkerPool pool(config(command));
    const auto work = [&] { settle(pool, {say(pool, 1)}); };
    EXPECT_THAT(error_of(work), HasSubstr("the command cannot be run")) << command;
  }
}

TEST(WorkerPool, AProgramThatAnsweredOnAnotherRankIsNotTakenForOneThatCannotRun) {
  WorkerPoolConfig c = config("exit 5", 2);
  c.retries = 0;
  WorkerPool pool(c);
  EXPECT_EQ(pool.take_failure_text(), "");  // a batch has ended in which this rank had no work
  std::vector<Answer> answers;
  for (int i = 0; i < 8; ++i) answers.push_back(say(pool, i));
  settle(pool, answers);  // throws nothing: they are dropped
  EXPECT_THAT(pool.take_failure_text(), HasSubstr("8 request(s) failed, 8 of them for good"));
}

TEST(WorkerPool, ACommandThatNeverAnswersIsAUsageErrorWithItsLastWords) {
  for (const char* command :
       {"echo fail >&2; exit 1", "echo fail >&2; true", "echo fail >&2; kill -9 $$",
        "echo fail >&2; cat", "echo fail >&2; echo hello; sleep 9"}) {
    WorkerPoolConfig c = config(command, 2);
    c.retries = 5;
    WorkerPool pool(c);
    const auto work = [&] { settle(pool, {say(pool, 1), say(pool, 2)}); };
    EXPECT_THAT(error_of(work),
                AllOf(HasSubstr("none has ever answered"), HasSubstr("its stderr: fail")))
        << command;
  }
}

TEST(WorkerPool, AProgramThatHasDiedForGoodEndsTheRun) {
  const ScratchFolder folder;
  const std::string mark = (folder.path() / "mark").string();
  // One right answer, to the first request, and nothing but nonsense from then on.
  WorkerPoolConfig c =
      config("while read -r line; do if [ -e " + mark + " ]; then echo HTTP 503; else touch " +
                 mark + R"(; echo '{"id": 1, "said": 1}'; fi; done)",
             64);
  c.retries = 0;
  WorkerPool pool(c);
  settle(pool, {say(pool, 1)});
  std::vector<Answer> answers;
  for (int i = 0; i < 300; ++i) answers.push_back(say(pool, i));
  EXPECT_THAT(error_of([&] { settle(pool, answers); }),
              AllOf(HasSubstr("200 requests in a row"), HasSubstr("HTTP 503")));
}

TEST(WorkerPool, AFailureNamesWhatItWasFor) {
  WorkerPoolConfig c = config("read -r line; echo nonsense");
  c.retries = 0;
  WorkerPool pool(c);
  const auto request = pool.submit(
      "\"say\": 1}", [](const std::vector<JsonMember>&) {}, "rows.jsonl:7");
  settle(pool, {{request}});
  EXPECT_THAT(request->why, HasSubstr("at rows.jsonl:7"));
}

TEST(WorkerPool, AProgramThatClosesItsOutputHasFailed) {
  WorkerPoolConfig c = config("exec " + std::string(kEcho));
  c.retries = 0;
  WorkerPool pool(c);
  settle(pool, {say(pool, 1)});
  const Answer bad = make_do(pool, "import os; os.close(1); import time; time.sleep(60)");
  settle(pool, {bad});
  EXPECT_THAT(bad.request->why, HasSubstr("closed its stdout"));
}

TEST(WorkerPool, AProgramMayEndAfterEachAnswer) {
  // sed's one line, then the end of the program: five answers by five processes.
  WorkerPool pool(config(R"(read -r line; echo "$line" | sed 's/"say"/"said"/')"));
  std::vector<Answer> answers;
  for (int i = 0; i < 5; ++i) answers.push_back(say(pool, i));
  settle(pool, answers);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(*answers[static_cast<size_t>(i)].said, std::to_string(i));
}

TEST(WorkerPool, ASlowRequestDoesNotHoldUpOthers) {
  WorkerPool pool(config(kEcho, 2));
  settle(pool, {say(pool, 0), say(pool, 0)});
  const Answer slow = make_do(pool, "import time; time.sleep(3)");
  std::vector<Answer> quick;
  for (int i = 0; i < 50; ++i) quick.push_back(say(pool, i));
  settle(pool, quick);
  EXPECT_EQ(slow.request->state, State::kInWork);
  settle(pool, {slow});
  EXPECT_EQ(slow.request->state, State::kAnswered);
}

/// Processes whose command line has `mark` in it, zombies apart.
int count_processes(const std::string& mark) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream file(entry.path() / "cmdline");
    std::ostringstream line;
    line << file.rdbuf();  // empty where the process has just ended
    if (line.str().find(mark) == std::string::npos) continue;
    const auto stat = process_stat(std::stoi(name));
    count += stat && stat->state != 'Z' ? 1 : 0;
  }
  return count;
}

void expect_none(const std::string& mark) {
  for (int i = 0; i < 500 && count_processes(mark) > 0; ++i)
    std::this_thread::sleep_for(milliseconds(10));
  EXPECT_EQ(count_processes(mark), 0) << mark;
}

TEST(WorkerPool, NothingIsLeftOfWhatAWorkerHasStarted) {
  const ScratchFolder folder;
  const std::string mark = folder.path().filename();  // in the command lines of all
  // It ignores the end of its input and SIGTERM, and a child of it holds all its pipes
  // open.
  const std::string stubborn = "trap '' TERM; (exec sh -c 'while :; do sleep 1; done # " + mark +
                               "') & " + kEcho + "; while :; do sleep 1; done # " + mark;
  {
    WorkerPool pool(config(stubborn));
    settle(pool, {say(pool, 1)});
    EXPECT_GE(count_processes(mark), 2);
  }
  expect_none(mark);
  {
    WorkerPoolConfig c = config(stubborn);
    c.timeout_s = 0.3;
    c.start_timeout_s = 1;
    WorkerPool pool(c);
    settle(pool, {say(pool, 1)});
    settle(pool, {make_do(pool, "import time; time.sleep(60)")});
    pool.cancel();
  }
  expect_none(mark);
}

TEST(WorkerPool, AWorkerThatEndsIsSeenThoughAChildHoldsItsPipes) {
  WorkerPoolConfig c = config("sleep 100 & exec " + std::string(kEcho));
  c.retries = 0;
  c.timeout_s = 60;
  WorkerPool pool(c);
  settle(pool, {say(pool, 1)});
  const Answer bad = make_do(pool, "import os; os._exit(4)");
  settle(pool, {bad});
  EXPECT_THAT(bad.request->why, HasSubstr("ended with exit status 4"));
}

TEST(WorkerPool, WhereTheSystemHasNoRoomForAllFewerDo) {
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  rlimit few = before;
  few.rlim_cur = 40;  // a worker takes four, and as many again while it starts
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  {
    WorkerPool pool(config(kEcho, 50));
    std::vector<Answer> answers;
    for (int i = 0; i < 60; ++i) answers.push_back(say(pool, i));
    settle(pool, answers);
    for (int i = 0; i < 60; ++i)
      EXPECT_EQ(*answers[static_cast<size_t>(i)].said, std::to_string(i));
  }
  ::setrlimit(RLIMIT_NOFILE, &before);
}

TEST(WorkerPool, CancelledWorkAnswersNothingLater) {
  WorkerPool pool(config(kEcho));
  settle(pool, {say(pool, 1)});
  const Answer slow = make_do(pool, "import time; time.sleep(1)"), queued = say(pool, 2);
  pool.poll(milliseconds(10));
  pool.cancel();
  const Answer next = say(pool, 3);
  settle(pool, {next});
  EXPECT_EQ(*next.said, "3");
  EXPECT_EQ(slow.request->state, State::kInWork);
  EXPECT_EQ(*slow.said, "");
  EXPECT_EQ(*queued.said, "");
}

TEST(ChildProcess, InheritsNothingAndIsNoRankOfAJob) {
  ::setenv("OMPI_COMM_WORLD_RANK", "1", 1);
  ::setenv("PMIX_NAMESPACE", "x", 1);
  const int leaked = ::dup(0);  // not closed by exec
  ::signal(SIGHUP, SIG_IGN);
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  WorkerPool pool(config(kEcho));
  const Answer answer =
      make_do(pool,
              "import os, signal; request['say'] = [sorted(os.listdir('/proc/self/fd'))[:3], "
              "len(os.listdir('/proc/self/fd')), [k for k in os.environ if k.startswith(('OMPI', "
              "'PMIX'))], signal.getsignal(signal.SIGHUP) == signal.SIG_DFL, "
              "len(signal.pthread_sigmask(signal.SIG_BLOCK, []))]");
  settle(pool, {answer});
  // Its three, and the folder that is listed.
  EXPECT_EQ(*answer.said, R"([["0", "1", "2"], 4, [], true, 0])");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::signal(SIGHUP, SIG_DFL);
  ::close(leaked);
  ::unsetenv("OMPI_COMM_WORLD_RANK");
  ::unsetenv("PMIX_NAMESPACE");
}

TEST(LastLines, KeepsTheEndAndCutsLongLines) {
  LastLines lines;
  for (int i = 0; i < 1000; ++i) lines.add(fmt::format("line {}\r\n", i));
  lines.add(std::string(100000, 'y'));
  lines.add("\x1b[31m\xff");
  const std::string text = lines.text();
  EXPECT_THAT(text, AllOf(HasSubstr("line 999 | yyyy"), HasSubstr("...")));
  EXPECT_EQ(text.find("line 900 "), std::string::npos);
  EXPECT_LT(text.size(), 3000u);
  lines.add("\na\x1b[31m\xc2\x9bz\xff\n");
  EXPECT_THAT(lines.text(), HasSubstr("| a [31m z\xEF\xBF\xBD"));
}

TEST(JsonMembers, AreTheTextThatStandsThere) {
  const auto members = json_members(
      "\xEF\xBB\xBF {\"a\" : 1.10 ,\"b\":\"}\\\"]\", "
      "\"c\":[{\"x\":[1,2]} ],\"\\u0061\":12345678901234567890123 }\r");
  ASSERT_EQ(members.size(), 4u);
  EXPECT_EQ(members[0].value, "1.10");
  EXPECT_EQ(members[1].value, "\"}\\\"]\"");
  EXPECT_EQ(members[2].value, "[{\"x\":[1,2]} ]");
  EXPECT_EQ(members[3].key, "a");
  EXPECT_EQ(find_member(members, "a")->value, "12345678901234567890123");
  EXPECT_EQ(find_member(members, "z"), nullptr);
  EXPECT_TRUE(json_members("{}").empty());
  for (const char* bad : {"", "{", "{}{}", "{\"a\":}", "{\"a\":1,}", "{\"a\":NaN}", "nul", "\xff"})
    EXPECT_EQ(error_of([&] { json_members(bad); }), "is not valid JSON") << bad;
  for (const char* bad : {"[]", "1", "\"x\"", "null"})
    EXPECT_EQ(error_of([&] { json_members(bad); }), "is not a JSON object") << bad;
}

}  // namespace
}  // namespace orrery::actors
