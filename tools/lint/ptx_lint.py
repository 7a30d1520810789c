#!/usr/bin/env python3
"""Checks what nvcc makes of the kernels whose bits are promised (docs/numerics.md), without a GPU.

    tools/lint/ptx_lint.py FILE.ptx ...         the PTX alone
    tools/lint/ptx_lint.py --compile NVCC ...   runs this compile command, then checks its PTX for
                                                each architecture and what ptxas said of it

The second form is the compiler launcher of all .cu (cmake/cuda.cmake): an object with a
finding is removed, so that no build has it. What ptxas says of each kernel (registers, shared
memory, spills) stays beside the object, as OBJECT.ptxas.txt. Prints one line a finding; exit code 1
if there is any.
"""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FLOAT = r"\.(f16|f16x2|bf16|bf16x2|f32|f32x2|f64|tf32)$"
# What an instruction may not be, and why.
FORBIDDEN = [
    (re.compile(r"\.ftz\b"), "flushes subnormal numbers; the CPU keeps them (-ftz=false)"),
    (re.compile(r"\.approx\b"), "is approximate, and differs from one architecture to the next"),
    (re.compile(r"^div\.full\b"), "is no IEEE division (-prec-div=true)"),
    (re.compile(r"^mad\b.*" + FLOAT), "lets the compiler choose whether it rounds once or twice"),
    (re.compile(r"^(atom|red|multimem|cp\.reduce)\b.*" + FLOAT), "adds floats in no fixed order"),
]
# ptxas may fuse a product and a sum that name no rounding.
ROUNDED = re.compile(r"^(add|sub|mul|fma|div|rcp|sqrt)\b.*" + FLOAT)
LABEL = re.compile(r"^[$\w]+:\s*")
PREDICATE = re.compile(r"^@!?%\w+\s+")
ENTRY = re.compile(r"\.(?:entry|func)\b(?:\s*\([^)]*\))?\s+([\w$]+)")
KIND = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_:]+)*")

# Kernels that spill all the same: (name, bytes of local memory at most, why).
SPILLS_ALLOWED = [
    ("attention_rows_kernel", 40, "timed so on an H100 (bench/gpu/RESULTS.md), where its widest rows "
                                  "hold 255 registers, the most there are"),
    ("16CopyBlockElement", 24, "copies wait for memory; registers are saved around divisions of int64"),
    ("attention_backward_queries_kernel", 8, "timed so on an H100 (bench/gpu/RESULTS.md)"),
]
# A kernel of these files is to keep all it works on in registers and shared memory.
WITHOUT_LOCAL_MEMORY = re.compile(r"(matmul|attention|lm_head)\w*\.cu$")
# Advisories of ptxas, which it prints as information: wgmma serialised, setmaxnreg ignored.
ADVISORIES = re.compile(r"\(C75(08|10)\)|wgmma.*serializ|setmaxnreg.*ignored", re.IGNORECASE)
PTXAS_FUNCTION = re.compile(r"Compiling entry function '([^']+)' for '(\w+)'")
# Architectures that tiles were chosen for. What ptxas says of others is kept, not judged.
TUNED_FOR = {"sm_90", "sm_90a"}
PTXAS_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def demangled(name):
    try:
        done = subprocess.run(["c++filt", "-p", name], capture_output=True, text=True, check=True)
        return re.sub(r"\w+::", "", done.stdout.strip()).removeprefix("void ")[:100]
    except (OSError, subprocess.CalledProcessError):
        return name


def statements(text):
    """(line, function, instruction) of a PTX file; several may stand on a line of inline asm."""
    function = "no function"
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("//")[0]
        entry = ENTRY.search(line)
        if entry:
            function = entry[1]
            continue
        for statement in re.split(r"[;{}]", line):
            statement = PREDICATE.sub("", LABEL.sub("", statement.strip()))
            kind = KIND.match(statement)
            if kind:
                yield number, function, kind[0]


def why_forbidden(kind):
    """What is wrong with an instruction, or None."""
    for pattern, why in FORBIDDEN:
        if pattern.search(kind):
            return why
    if ROUNDED.search(kind) and "rn" not in kind.split("."):
        return "does not say that it rounds to nearest (-fmad=false and the _rn functions do)"
    return None


def ptx_findings(name, text):
    """One line for each kind of instruction that a function has no business with."""
    if not re.search(r"^\.version ", text, re.MULTILINE):
        yield f"{name}: is no PTX, which names its .version"
    found = {}
    for number, function, kind in statements(text):
        why = why_forbidden(kind)
        if why:
            found.setdefault((function, kind), [number, 0, why])[1] += 1
    for (function, kind), (number, times, why) in found.items():
        yield f"{name}:{number}: {demangled(function)}: {kind} ({times} times) {why}"


def ptxas_findings(source, text):
    """What `ptxas -v` said of the kernels of a source file that they may not be."""
    function, architecture = "no function", ""
    for line in text.splitlines():
        if ADVISORIES.search(line):
            yield f"{source}: {line.strip()}"
        named = PTXAS_FUNCTION.search(line)
        if named:
            function, architecture = named.groups()
        frame = PTXAS_FRAME.search(line)
        if not frame or architecture not in TUNED_FOR:
            continue
        local, stored, loaded = (int(digits) for digits in frame.groups())
        if any(word in function and local <= most for word, most, _ in SPILLS_ALLOWED):
            continue
        if stored or loaded:
            yield (f"{source}: {demangled(function)}: registers spill to local memory ({stored} bytes stored, "
                   f"{loaded} loaded): a smaller tile, or __launch_bounds__ for more registers")
        elif local and WITHOUT_LOCAL_MEMORY.search(source):
            yield (f"{source}: {demangled(function)}: {local} bytes of local memory: an array is indexed by what "
                   "the compiler does not know")


def compiled(command):
    """Runs an nvcc command that makes an object, checks it, and returns the exit code."""
    target = Path(command[command.index("-o") + 1])
    source = next((word for word in command if word.endswith(".cu")), "")
    if "-fmad=false" not in command:
        print(f"{source}: compiled without -fmad=false: nvcc would fuse products and sums")
        return 1
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=target.name + ".") as folder:
        done = subprocess.run([*command, "-Xptxas=-v", "--keep", f"--keep-dir={folder}"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")
        said = done.stdout
        for line in said.splitlines():
            if done.returncode != 0 or not re.match(r"ptxas info|\s+\d+ bytes stack frame|$", line):
                print(line)
        if done.returncode != 0:
            return done.returncode
        ptx = sorted(Path(folder).glob("*.ptx"))
        findings = [] if ptx else [f"{source}: nvcc left no PTX to check"]
        for path in ptx:
            findings += ptx_findings(path.name, path.read_text())
        findings += ptxas_findings(source, said)
    Path(f"{target}.ptxas.txt").write_text(said)
    if findings:
        target.unlink(missing_ok=True)
        print(*findings, sep="\n")
    return 1 if findings else 0


def main(arguments):
    if arguments[:1] == ["--compile"] and len(arguments) > 1:
        return compiled(arguments[1:])
    if not arguments or arguments[0].startswith("-"):
        print("usage: tools/lint/ptx_lint.py FILE.ptx ... | --compile NVCC ...", file=sys.stderr)
        return 2
    findings = [line for name in arguments for line in ptx_findings(name, Path(name).read_text())]
    print(*findings or [f"ptx_lint: clean ({len(arguments)} files)"], sep="\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
