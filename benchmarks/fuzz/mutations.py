"""Damage files: bytes of any format, and JSON with its structure."""

import json
import random
import struct
from pathlib import Path

LARGE = (0, 1, -1, 2**7, 2**15 - 1, -(2**15), 2**16, 2**31 - 1, -(2**31), 2**32, 2**63 - 1)
LARGEST_FILE = 2_000_000  # bytes; the cases are small files


def mutate_bytes(rng: random.Random, content: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """Return content with one to four damages.

    Args:
      others: contents of other files, from which pieces may be taken.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        content = rng.choice(_DAMAGES)(rng, content, others)[:LARGEST_FILE]
    return content


def _flip(rng: random.Random, content: bytes, others: tuple[bytes, ...]) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _write_number(rng: random.Random, content: bytes, others: tuple[bytes, ...]) -> bytes:
    form = rng.choice(("<b", "<h", ">h", "<i", ">i", "<q", ">q", "<f", "<d"))
    size = struct.calcsize(form)
    if form[1] in "fd":
        packed = struct.pack(form, rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"))))
    else:
        mask = (1 << (8 * size)) - 1
        packed = (rng.choice(LARGE) & mask).to_bytes(size, "little" if form[0] == "<" else "big")
    at = rng.randrange(max(len(content) - size, 0) + 1)
    return content[:at] + packed + content[at + size :]


def _truncate(rng: random.Random, content: bytes, others: tuple[bytes, ...]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _extend(rng: random.Random, content: bytes, others: tuple[bytes, ...]) -> bytes:
    return content + rng.randbytes(rng.choice((1, 4, 100, 5000)))


def _cut(rng: random.Random, content: bytes, others: tuple[bytes, ...]) -> bytes:
    start, stop = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[stop:]


def _repeat(rng: random.Random, content: bytes, others: tuple[bytes, ...]) -> bytes:
    start, stop = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:stop] + content[start:stop] * rng.choice((1, 1, 3)) + content[stop:]


def _overwrite(rng: random.Random, content: bytes, others: tuple[bytes, ...]) -> bytes:
    at, size = rng.randrange(len(content) + 1), rng.choice((1, 4, 16, 256))
    filling = rng.choice((b"\0", b"\xff", b" ", b"9")) * size
    return content[:at] + filling + content[at + size :]


def _splice(rng: random.Random, content: bytes, others: tuple[bytes, ...]) -> bytes:
    other = rng.choice((*others, content))
    at, start = rng.randrange(len(content) + 1), rng.randrange(len(other) + 1)
    return content[:at] + other[start : start + rng.choice((8, 64, 10_000))] + content[at:]


_DAMAGES = (_flip, _flip, _write_number, _truncate, _extend, _cut, _repeat, _overwrite, _splice)

# ---------------------------------------------------------------------------------------- JSON

_MARK = "@@fuzz@@"


def _odd_values(rng: random.Random) -> str:
    """Return the text of an odd value, which may not be valid JSON."""
    deep = rng.choice((50, 900, 100_000))
    return rng.choice((
        "null", "true", "false", "0", "-1", "1", "2", "3.5", "1e400", "-1e400", "1e-400", "NaN",
        "Infinity", "-Infinity", str(2**31), str(2**63), str(2**64 + 1), "9" * 400, "9" * 5000,
        "1e999999999", "0." + "3" * 400, "-0.0", '""', '"1"', '" "', '"x"', '"a\\u0000b"',
        '"\\ud800"', '"../../.."', '"/"', '"\u00e9\u4e2d"', '"' + "x" * 300 + '"',
        '"' + "y" * 200_000 + '"', "[]", "{}", "[[]]", "[0]", '[""]', "[null]", '{"": 0}',
        "[" + "1," * 3000 + "1]", "[" * deep + "]" * deep, '{"a":' * deep + "0" + "}" * deep, "",
        "undefined", "'x'", "+1", "01", "1.", "//", '"',
    ))  # fmt: skip


def mutate_json(rng: random.Random, text: str) -> bytes:
    """Return a JSON text, with zero to three changes of its structure or its bytes."""
    if rng.random() < 0.15:
        return _rewritten(rng, text)
    content = text.encode()
    if rng.random() < 0.75:
        document = json.loads(text)
        odd = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            document = _change(rng, document, odd)
        text = json.dumps(document)
        for value in odd:
            text = text.replace(json.dumps(_MARK), value, 1)
        content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.3:
        content = rng.choice((mutate_bytes, _break_encoding))(rng, content)
    return content


def _rewritten(rng: random.Random, text: str) -> bytes:
    """Return the same content in another form."""
    document = json.loads(text)
    if isinstance(document, dict):
        entries = list(document.items())
        rng.shuffle(entries)
        document = dict(entries)
    indent = rng.choice((None, 0, 1, "\t"))
    return (json.dumps(document, indent=indent, ensure_ascii=rng.random() < 0.5) + "\n").encode()


def _break_encoding(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    return rng.choice((
        b"\xef\xbb\xbf" + content,
        content[:at] + b"\xff\xfe" + content[at:],
        content[:at] + b"\0" + content[at:],
        content.decode("utf-8", "replace").encode("utf-16"),
    ))  # fmt: skip


def _change(rng: random.Random, document: object, odd: list[str]) -> object:
    """Return a document with one change at a random place. Odd values are marked, and listed."""
    if isinstance(document, dict) and document and rng.random() < 0.8:
        key = rng.choice(list(document))
        changed = dict(document)
        match rng.randrange(10):
            case 0:
                del changed[key]
            case 1:
                changed[rng.choice(("", "x", key + " ", key.upper(), "\ud800"))] = changed.pop(key)
            case 2:
                changed[key + rng.choice("_x ")] = document[key]
            case 3:
                changed[key] = changed[rng.choice(list(document))]
            case _:
                changed[key] = _change(rng, document[key], odd)
        return changed
    if isinstance(document, list) and document and rng.random() < 0.8:
        at = rng.randrange(len(document))
        changed = list(document)
        match rng.randrange(6):
            case 0:
                del changed[at]
            case 1:
                changed.insert(at, document[at])
            case 2:
                rng.shuffle(changed)
            case _:
                changed[at] = _change(rng, document[at], odd)
        return changed
    if isinstance(document, int | float) and rng.random() < 0.4:
        return document * rng.choice((-1, 0, 2, 10, 1e10)) + rng.choice((0, 1, -1))
    odd.append(_odd_values(rng))
    return _MARK


def mutate_place(rng: random.Random, path: Path) -> None:
    """Replace a file by nothing, an empty file, a folder, a loop of links, or a broken link."""
    path.unlink()
    match rng.randrange(5):
        case 0:
            path.touch()
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(path.name)  # a loop
        case 3:
            path.symlink_to("nowhere")
        case _:
            pass
