"""Model files (safetensors), read as `msseg predict --model` and `msseg export --show` do."""

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.case import WrongReading
from benchmarks.fuzz.mutations import mutate_bytes, mutate_json, mutate_place
from benchmarks.fuzz.targets._networks import (
    CONFIG,
    PREPROCESSING,
    RELIABILITY,
    are_equal,
    variables,
)
from msseg_jax.models.agreed_options import agreed_options
from msseg_jax.models.model_description import describe
from msseg_jax.models.model_file import (
    FORMAT,
    About,
    TrainedNetwork,
    read_model_file,
    write_model_file,
)

NAME = "model"


def make(folder: Path) -> None:
    """Write a file with one network, and one with two and a reliability table."""
    for count in (1, 2):
        networks = [
            TrainedNetwork(
                f"network {seed}", CONFIG.trained, PREPROCESSING, variables(seed), "best", seed,
                record=CONFIG.model_dump(mode="json"),
            )
            for seed in range(count)
        ]  # fmt: skip
        about = About(name="fuzz", version="1", licence="CC-BY", attribution="A\nB")
        table = RELIABILITY if count == 2 else None
        write_model_file(folder / f"{count}.safetensors", about, networks, table)


def mutate(rng: random.Random, seeds: Path, case: Path) -> None:
    """Damage the header, the description in it, the numbers, or any bytes."""
    content = rng.choice(sorted(seeds.iterdir())).read_bytes()
    path = case / "model.safetensors"
    size = struct.unpack("<Q", content[:8])[0]
    header, numbers = json.loads(content[8 : 8 + size]), content[8 + size :]
    match rng.randrange(12):
        case 0:
            path.write_bytes(content)
            if rng.random() < 0.5:
                mutate_place(rng, path)
        case 1:
            path.write_bytes(mutate_bytes(rng, content))
        case 2:
            path.write_bytes(_packed(mutate_bytes(rng, content[8 : 8 + size]), numbers))
        case 3:
            odd = rng.choice((0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1, 10**8, 10**8 + 1))
            path.write_bytes(struct.pack("<Q", odd) + content[8:])
        case 4 | 5:
            text = json.dumps(header)
            path.write_bytes(_packed(mutate_json(rng, text), numbers))
        case 6:
            path.write_bytes(_packed(json.dumps(header).encode(), _odd_numbers(rng, numbers)))
        case 7:
            _change_tensor(rng, header)
            path.write_bytes(_packed(json.dumps(header).encode(), numbers))
        case _:
            text = mutate_json(rng, header["__metadata__"][FORMAT])
            header["__metadata__"][FORMAT] = text.decode("utf-8", "replace")
            path.write_bytes(_packed(json.dumps(header).encode(), numbers))


def _packed(header: bytes, numbers: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + numbers


def _odd_numbers(rng: random.Random, numbers: bytes) -> bytes:
    array = np.frombuffer(numbers, np.float32).copy()
    odd = (np.nan, np.inf, -np.inf, 3e38, 1e-45, -0.0)
    array[rng.randrange(array.size)] = rng.choice(odd)
    return array.tobytes()


def _change_tensor(rng: random.Random, header: dict[str, Any]) -> None:
    names = [name for name in header if name != "__metadata__"]
    name, other = rng.choice(names), rng.choice(names)
    match rng.randrange(6):
        case 0:
            header[name]["dtype"] = rng.choice(("F16", "BF16", "F64", "I32", "U8", "BOOL", "F4"))
        case 1:
            header[name]["shape"] = rng.choice(([], [0], [-1], [2**63], [2**64], [2**32, 2**32]))
        case 2:
            header[name]["shape"].reverse()
        case 3:
            header[name], header[other] = header[other], header[name]
        case 4:
            header[name]["data_offsets"] = header[other]["data_offsets"]
        case _:
            header[rng.choice(("x", name + "/x", "2" + name[1:], "\u00e9"))] = header.pop(name)


def use(case: Path) -> None:
    """Read and describe the file, and compare what it contains."""
    path = case / "model.safetensors"
    file = read_model_file(path)
    agreed_options(file.networks)
    if file.about.name not in describe(file):
        raise WrongReading("the description lacks the name")
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    document = json.loads(header["__metadata__"][FORMAT])
    if file.about.model_dump(mode="json") != document["about"]:
        raise WrongReading(f"about is {file.about}")
    found = None if file.reliability is None else file.reliability.model_dump(mode="json")
    if found != document.get("reliability"):
        raise WrongReading(f"reliability is {found}")
    for number, network in enumerate(file.networks):
        entry = document["networks"][number]
        if (network.step, network.kind) != (entry["step"], entry["kind"]):
            raise WrongReading(f"network {number} is {network}")
        for section in ("model", "predict"):
            found = getattr(network.config, section).model_dump(mode="json")
            if any(entry["config"][section][name] != value for name, value in found.items()):
                raise WrongReading(f"network {number}: {section} is {found}")
        if network.preprocessing.model_dump(mode="json") != entry["preprocessing"]:
            raise WrongReading(f"network {number}: {network.preprocessing}")
        if _is_as_written(header, content[8 + size :], case) and not are_equal(
            network.variables, variables(number)
        ):
            raise WrongReading(f"network {number}: other numbers")


def _is_as_written(header: dict[str, Any], numbers: bytes, case: Path) -> bool:
    """Return whether the numbers, and their places in the file, are those of the seeds."""
    folder = case / "seeds"
    folder.mkdir(exist_ok=True)
    make(folder)
    for path in folder.iterdir():
        content = path.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        own = json.loads(content[8 : 8 + size])
        del own["__metadata__"]
        if own == {k: v for k, v in header.items() if k != "__metadata__"}:
            return content[8 + size :] == numbers
    return False
