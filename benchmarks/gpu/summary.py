"""Write the results of the GPU benchmark as summary.json and summary.md."""

import json
from pathlib import Path


def write_summary(folder: Path, results: dict[str, dict]) -> None:
    """Write both files. Results are those of the parts so far, by name of the part."""
    (folder / "summary.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(as_markdown(results), encoding="utf-8")


def as_markdown(results: dict[str, dict]) -> str:
    """Return the results as a page."""
    lines = ["# GPU benchmark", "", "| part | status | s |", "|---|---|---|"]
    lines += [f"| {name} | {r['status']} | {r.get('seconds', '')} |" for name, r in results.items()]
    for name, result in results.items():
        rest = {k: v for k, v in result.items() if k not in ("status", "seconds")}
        if not rest:
            continue
        lines += ["", f"## {name}", ""]
        tables = {k: v for k, v in rest.items() if isinstance(v, list) and v and _is_table(v)}
        plain = {k: v for k, v in rest.items() if k not in tables}
        if plain:
            lines += ["| | |", "|---|---|"]
            lines += [f"| {key} | {_shown(value)} |" for key, value in plain.items()]
        for rows in tables.values():
            lines += ["", *_table(rows)]
    ratios = torch_ratios(results)
    if ratios:
        lines += ["", "## Compared with PyTorch's best time on this card", "", "| | |", "|---|---|"]
        lines += [f"| {key} | {value:.2f} |" for key, value in ratios.items()]
    return "\n".join(lines) + "\n"


def torch_ratios(results: dict[str, dict]) -> dict[str, float]:
    """Return our time of a step, divided by the fastest of PyTorch's, by dtype and place."""
    ratios = {}
    for part, result in results.items():
        dtype = result.get("dtype")
        peer = results.get(f"torch-{dtype}", {})
        times = [value for key, value in peer.items() if key.endswith(", ms")]
        for key, value in result.items():
            if part.startswith("steps") and key.endswith("_step_ms") and times:
                ratios[f"{part}, {key.removesuffix('_step_ms')}"] = value / min(times)
    return ratios


def _is_table(value: list) -> bool:
    return all(isinstance(row, dict) for row in value)


def _table(rows: list[dict]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return lines + [
        "| " + " | ".join(_shown(row.get(column, "")) for column in columns) + " |" for row in rows
    ]


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(part)}" for key, part in value.items())
    return str(value).replace("|", "/").replace("\n", " ")
