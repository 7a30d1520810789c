"""An environment of several turns (data.env: external): the policy guesses a digit and is told "+"
(it is larger) or "-".

One process serves many episodes at once, so nothing of an episode is kept here: what one wants to
know in the next turn is the answer's "state", which comes back with the next request. An answer
goes on with an "observation" or ends with a "reward". """
import json
import sys

MOST_GUESSES = 4


def reset(row):
    """The state before the first turn. row: the line of the data file, all of its keys."""
    return {"secret": row["secret"], "guesses": []}


def step(state, response, tokens_left):
    """(observation, None), or (None, reward) and what else is to be counted."""
    guess = response.strip()
    state["guesses"].append(guess)
    used = len(state["guesses"])
    if not (len(guess) == 1 and guess.isdigit()):
        return None, {"reward": 0.0, "acc": False, "guesses": used}
    if int(guess) == state["secret"]:
        return None, {"reward": 1.0 - 0.1 * (used - 1), "acc": True, "guesses": used}
    if used == MOST_GUESSES or tokens_left < 4:  # nothing more fits into data.max_response_length
        return None, {"reward": 0.1, "acc": False, "guesses": used}
    return ("+" if int(guess) < state["secret"] else "-"), None


def main():
    for line in sys.stdin:
        request = json.loads(line)
        state = reset(request["row"]) if request["turn"] == 0 else request["state"]
        observation, end = step(state, request["response"], request["tokens_left"])
        if end is None:
            answer = {"id": request["id"], "observation": observation, "state": state}
        else:
            answer = {"id": request["id"], **end}
        print(json.dumps(answer),
              flush=True)  # stdout is for answers alone; print to sys.stderr what you like to know


if __name__ == "__main__":
    main()
