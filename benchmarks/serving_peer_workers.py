"""Peers that run under another Python than edgemw's: `serving.py --peer-python PATH` starts them.

    PATH -m benchmarks.serving_peer_workers fastapi|litert FOLDER

fastapi    what its tutorial comes to: pydantic checks the numbers, ONNX Runtime answers, uvicorn listens, with uvloop and
           httptools where they are installed. An `async def`, which spares it a thread; no log of requests.
litert     the MLP in LiteRT's interpreter. Its file is put together from LiteRT's own schema: the converter is not needed.
"""

import json
import socket
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.serving_windows import obey_windows

TFLITE_IDENTIFIER, TFLITE_VERSION = b"TFL3", 3


def fastapi(folder: Path) -> None:
    import onnxruntime
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "infer.onnx", options, providers=["CPUExecutionProvider"])
    x, expected = question(folder)
    np.testing.assert_allclose(session.run(["y"], {"x": x})[0], expected, rtol=1e-3, atol=1e-5)
    samples = list[list[float]] if x.ndim == 2 else list[list[list[float]]]

    class Question(BaseModel):
        x: samples

    class Answer(BaseModel):
        y: list[list[float]]

    app = FastAPI()

    @app.post("/predict")
    async def predict(asked: Question) -> Answer:
        return Answer(y=session.run(["y"], {"x": np.array(asked.x, np.float32)})[0].tolist())

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    versions = f"{version('fastapi')}, uvicorn {version('uvicorn')}, {'uvloop' if find_spec('uvloop') else 'asyncio'}"
    print(json.dumps({"port": listening.getsockname()[1], "version": versions}), flush=True)
    uvicorn.Server(config).run(sockets=[listening])


def litert(folder: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    with np.load(folder / "tensors.npz") as tensors:
        model = dense_layers([tensors[name] for name in tensors.files])
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    x, expected = question(folder)

    def predict() -> np.ndarray:
        interpreter.set_tensor(taken, x)
        interpreter.invoke()
        return interpreter.get_tensor(given)

    np.testing.assert_allclose(predict(), expected, rtol=1e-3, atol=1e-5)
    obey_windows({"version": version("ai-edge-litert")}, predict)


def dense_layers(tensors: list[np.ndarray]) -> bytes:
    """A .tflite of weight, bias, weight, bias ...: dense layers for a batch of one, with ReLU between them."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: tuple[int, ...], buffer: int = 0) -> schema.TensorT:
        return schema.TensorT(name=name, shape=list(shape), type=schema.TensorType.FLOAT32, buffer=buffer)

    kinds = schema.ActivationFunctionType
    count, layers = len(tensors), len(tensors) // 2
    parts = [tensor(f"weights-{at}", values.shape, at + 1) for at, values in enumerate(tensors)]
    parts.append(tensor("x", (1, tensors[0].shape[1])))
    operators = []
    for layer in range(layers):
        parts.append(tensor(f"y-{layer}", (1, len(tensors[2 * layer]))))
        activation = kinds.NONE if layer == layers - 1 else kinds.RELU
        operators.append(
            schema.OperatorT(
                inputs=[count + layer, 2 * layer, 2 * layer + 1],
                outputs=[count + layer + 1],
                builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
                builtinOptions=schema.FullyConnectedOptionsT(fusedActivationFunction=activation),
            )
        )
    code = schema.BuiltinOperator.FULLY_CONNECTED
    model = schema.ModelT(
        version=TFLITE_VERSION,
        operatorCodes=[schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code)],
        subgraphs=[schema.SubGraphT(tensors=parts, inputs=[count], outputs=[count + layers], operators=operators)],
        buffers=[schema.BufferT()]  # the first one is that of tensors without values
        + [schema.BufferT(data=np.frombuffer(values.astype("<f4").tobytes(), np.uint8)) for values in tensors],
    )
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), TFLITE_IDENTIFIER)
    return bytes(builder.Output())


def question(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "question.npz") as values:
        return values["x"], values["y"]


if __name__ == "__main__":
    try:
        {"fastapi": fastapi, "litert": litert}[sys.argv[1]](Path(sys.argv[2]))
    except ModuleNotFoundError as error:
        print(json.dumps({"left_out": f"{sys.executable} has no {error.name}"}), flush=True)
