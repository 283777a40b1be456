"""The table of forms: how long each takes for each pass of each layer, and which one is chosen."""

import time

START_S, END_S = 20, 5  # seconds of this part for the start of the process that times, and the end


def run(task):
    """Time all forms of the paper's training step, as a training does before its first step."""
    on_gpu = task.on_gpu()
    if not on_gpu and not task.small:
        return
    from msseg_jax.network.convolution import choice, measuring
    from msseg_jax.network.convolution.candidates import candidates
    from msseg_jax.network.convolution.timing import time_forms
    from msseg_jax.training.gpu_forms import jobs_of

    config = task.configuration()
    train = config.train.model_copy(update={"compute_dtype": task.argument})
    jobs = jobs_of(config.model_copy(update={"train": train}))
    start = time.monotonic()
    if on_gpu:
        measuring.time_missing(jobs, task.left_s - START_S - END_S, start_s=START_S)
        known = choice.known()
        path = choice.path()
        if path and path.exists():
            (task.folder / f"forms-{task.argument}.json").write_text(choice.as_text(known))
    else:  # this GPU-less test of the script times two passes here
        few = measuring.missing(jobs)[-2:]
        timed = time_forms(few, lambda job: candidates(job.layer.kernel_size), task.left_s - END_S)
        known = {str(job): outcomes for job, outcomes in timed}
    rows = [row(job, known[str(job)]) for job in dict.fromkeys(jobs) if str(job) in known]
    timed = [r for r in rows if isinstance(r.get("plain"), float)]  # the plain form may have failed
    task.report(
        table=rows, jobs=len(set(jobs)), timed=len(timed),
        took_s=round(time.monotonic() - start, 1),
        plain_ms=sum(r["plain"] for r in timed), chosen_ms=sum(r[r["chosen"]] for r in timed),
    )  # fmt: skip


def row(job, outcomes) -> dict:
    """Return a row of the table: milliseconds of each form, or why it cannot be used."""
    from msseg_jax.network.convolution.choice import chosen

    cells = {o.form: o.reason if o.seconds is None else o.seconds * 1e3 for o in outcomes}
    return {"layer": str(job.layer), "pass": job.which, "chosen": chosen(outcomes), **cells}
