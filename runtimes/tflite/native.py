"""What LiteRT's interpreter tells of a file. Also a script, see `runtimes/apart.py`: it needs nothing of edgebert."""

import json
import sys
from typing import Any


def taken(path: str, nodes: int | None) -> list[bool] | None:
    """For each operator of the first subgraph whether a delegate took it over; None where the interpreter cannot tell.

    It lists the original operators first and then its delegates. A tensor inside a delegate is never allocated, and one
    that leaves it is among the delegate's outputs: an operator with either was taken over.

    Args:
        path: of the file.
        nodes: how many operators it has; None opens the file and asks no more.

    Raises:
        ValueError, RuntimeError: the interpreter does not open the file.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path)
    if nodes is None:
        return None
    try:
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError):
        return None
    listed = interpreter._get_ops_details()
    outside = {int(tensor) for op in listed[nodes:] for tensor in op["outputs"]}
    return [any(t in outside or not _allocated(interpreter, t) for t in op["outputs"]) for op in listed[:nodes]]


def _allocated(interpreter: Any, tensor: int) -> bool:
    """Whether a tensor of the first subgraph has memory."""
    try:
        interpreter.tensor(tensor)()
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    print(json.dumps(taken(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)))
