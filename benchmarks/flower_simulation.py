"""Flower's simulation engine on the task of `simulate.py`, which runs this under a Python that has flwr[simulation] and torch.

    python flower_simulation.py SAMPLES.npz CLIENTS ROUNDS CPUS_PER_CLIENT

SAMPLES holds x float32[n, 64], y int64[n] and client int64[n]. Prints the seconds of every round, without evaluation, and the
most memory of this process and of the actors, as one JSON object in the last line.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time

import numpy as np
import psutil
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

SAMPLES, CLIENTS, ROUNDS, CPUS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
LR, BATCH = 0.1, 32

client_app = ClientApp()
server_app = ServerApp()
starts: list[float] = []


def model() -> torch.nn.Module:
    """The quickstart's."""
    torch.set_num_threads(1)
    layers = torch.nn
    return layers.Sequential(
        layers.Linear(64, 256), layers.ReLU(), layers.Linear(256, 128), layers.ReLU(), layers.Linear(128, 10)
    )


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """One epoch of SGD on the client's own part."""
    net = model()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    with np.load(SAMPLES) as arrays:
        mine = arrays["client"] == int(context.node_config["partition-id"])
        x, y = torch.from_numpy(arrays["x"][mine]), torch.from_numpy(arrays["y"][mine])
    optimizer, loss_of = torch.optim.SGD(net.parameters(), lr=LR), torch.nn.CrossEntropyLoss()
    for rows in torch.randperm(len(x)).split(BATCH):
        optimizer.zero_grad()
        loss_of(net(x[rows]), y[rows]).backward()
        optimizer.step()
    found = {"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord({"num-examples": len(x)})}
    return Message(content=RecordDict(found), reply_to=message)


class Timed(FedAvg):
    """Notes when rounds begin."""

    def configure_train(self, *args: object, **kwargs: object) -> object:
        """See FedAvg."""
        starts.append(time.monotonic())
        return super().configure_train(*args, **kwargs)


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """All clients in every round, and nobody evaluates."""
    strategy = Timed(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=CLIENTS, min_available_nodes=CLIENTS)
    strategy.start(grid, ArrayRecord(model().state_dict()), num_rounds=ROUNDS)
    starts.append(time.monotonic())


def _watch(peaks: list[int], over: threading.Event) -> None:
    """Unique memory of this process and all it has started."""
    own = psutil.Process()
    while not over.wait(0.5):
        total = 0
        for process in [own, *own.children(recursive=True)]:
            try:
                total += process.memory_full_info().uss
            except psutil.Error:
                continue
        peaks.append(total)


if __name__ == "__main__":
    used: list[int] = [0]
    ended = threading.Event()
    watching = threading.Thread(target=_watch, args=(used, ended))
    watching.start()
    try:
        run_simulation(server_app, client_app, CLIENTS, backend_config={"client_resources": {"num_cpus": CPUS, "num_gpus": 0.0}})
    finally:
        ended.set()
        watching.join()
    print(json.dumps({"rounds_s": [b - a for a, b in itertools.pairwise(starts)], "peak_mib": max(used) / 2**20}))
