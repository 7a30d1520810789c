"""A reward of one's own (data.env: external): a JSON object a line in, one out. docs/formats.md has
all of it."""
import json
import sys

for line in sys.stdin:
    request = json.loads(line)
    said, truth = request["response"].strip(), request["row"]["answer"]
    close = said.isdigit() and len(said) == len(truth)
    answer = {"id": request["id"], "reward": float(said == truth) + 0.1 * close, "acc": said == truth, "close": close}
    print(json.dumps(answer), flush=True)
