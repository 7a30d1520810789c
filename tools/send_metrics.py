#!/usr/bin/env python3
"""Sends the curves of a run to Weights & Biases or MLflow, read from its TensorBoard files.

    python3 tools/send_metrics.py wandb RUN     # pip install tensorboard wandb; WANDB_MODE=offline works too
    python3 tools/send_metrics.py mlflow RUN    # pip install tensorboard mlflow; MLFLOW_TRACKING_URI as usual

Every call makes one run there, named like the folder, with our step numbers.
"""
import collections
import pathlib
import sys


def curves(run):
    """step -> {tag: value}"""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    steps = collections.defaultdict(dict)
    for tag in events.Tags()["scalars"]:
        for point in events.Scalars(tag):
            steps[point.step][tag] = point.value
    return sorted(steps.items())


def config(run):
    """The resolved config, as text."""
    file = run / "config.yaml"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("wandb", "mlflow"):
        sys.exit(__doc__.strip())
    tracker, run = sys.argv[1], pathlib.Path(sys.argv[2])
    if not (run / "tensorboard").is_dir():
        sys.exit(f"{run}/tensorboard is no folder: give a run folder, written with trainer.tensorboard: true")
    if tracker == "wandb":
        import wandb

        with wandb.init(project="orrery", name=run.name, config={"config.yaml": config(run)}) as log:
            for step, values in curves(run):
                log.log(values, step=step)
    else:
        import mlflow

        mlflow.set_experiment("orrery")
        with mlflow.start_run(run_name=run.name):
            mlflow.log_text(config(run), "config.yaml")
            for step, values in curves(run):
                # MLflow allows no @ in a name.
                mlflow.log_metrics(
                    {tag.replace("@", "_at_"): value for tag, value in values.items()}, step=step)


if __name__ == "__main__":
    try:
        main()
    except ModuleNotFoundError as error:
        sys.exit(f"{error}; pip install tensorboard and wandb or mlflow")
