"""Training steps on several devices, and the start-up of several processes."""

import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msseg_jax.configuration.files import typed
from msseg_jax.data.loader import load_batches
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.errors import InputError
from msseg_jax.system.interruption import EXIT_STATUS, INTERRUPTED
from msseg_jax.training import devices as training_devices
from msseg_jax.training import joining, processes
from msseg_jax.training.batches import prepare_data, training_batches
from msseg_jax.training.devices import (
    AXIS,
    check_compute_dtype,
    on_every_device,
    parallel_step,
    spread_over_devices,
)
from msseg_jax.training.joining import heeding_signals, join_processes
from msseg_jax.training.objective import Objective
from msseg_jax.training.schedule import Schedule, learning_rate
from msseg_jax.training.step import create_state, loaded_step
from tests.support.runs import build_model


def packed_batch(number, patches=8):
    generator = np.random.default_rng(number)
    return {
        "images": generator.integers(-3000, 3000, (patches, 2, 8, 8, 8)).astype(np.int16),
        "targets": generator.integers(0, 4, (patches, 1, 8, 8, 8)).astype(np.uint8),
        "known": np.ones((patches, 2), bool),
        "patch_ids": np.arange(patches, dtype=np.int32),
    }


@pytest.fixture
def compilations():
    """Count the compilations of XLA while the test runs."""
    counted = []

    def count(event, duration_s, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            counted.append(duration_s)

    jax.monitoring.register_event_duration_secs_listener(count)
    yield counted
    jax.monitoring.clear_event_listeners()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_step_is_compiled_once_and_reuses_the_memory_of_the_state(
    small_config, compilations, dtype
):
    devices = jax.local_devices()
    state = create_state(build_model(small_config, AXIS, dtype), lambda step: 0.01)
    state = on_every_device(state, devices)
    step = parallel_step(
        partial(loaded_step, seed=7, patch_size=8, objective=Objective(2)), devices
    )
    for number in range(4):
        before = len(compilations)
        old = state
        state, metrics, stop = step(state, packed_batch(number), {}, flag=False)
        jax.block_until_ready((state, metrics, stop))
        assert (len(compilations) > before) == (number == 0)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((old.params, old.opt_state)))
    for leaf in jax.tree.leaves((state.params, state.batch_stats, state.opt_state, metrics)):
        assert leaf.dtype in (jnp.float32, jnp.int32)
    assert int(state.step) == 4


@pytest.fixture
def reads(monkeypatch):
    """Record the shapes of the arrays that the host reads.

    On a CPU, JAX's transfer guard does not report such reads.
    """
    array, read = type(jnp.zeros(())), []

    class Spy:
        def __get__(self, own, _, value=array._value):
            read.append(own.shape)
            return value.__get__(own)

    monkeypatch.setattr(array, "_value", Spy())
    return read


@pytest.mark.parametrize("resident", [False, True])
def test_the_host_reads_no_array_while_the_first_step_is_compiled(
    small_config, reads, tmp_path, resident
):
    small_config.data.device_resident = resident
    devices = jax.local_devices()
    data = prepare_data(typed(small_config), RunFolder(tmp_path / "run"), None)
    config = typed(small_config)
    schedule = Schedule.of(config.train, config.data.patches_per_patient, len(data.training))
    rate = learning_rate(config.train, schedule)
    state = create_state(build_model(small_config, AXIS), rate)
    batches, volumes = training_batches(config, data, 1, devices)
    assert bool(volumes) is resident
    state = on_every_device(state, devices)
    step = parallel_step(
        partial(loaded_step, seed=7, patch_size=8, objective=Objective(2)), devices
    )
    (batch,) = load_batches(batches, 0, 1)
    reads.clear()
    result = step(state, batch, volumes)
    assert reads == []
    jax.device_get(result)
    assert reads  # the fixture does record reads


def test_copies_from_the_host_inside_a_step_are_refused():
    devices = jax.local_devices()
    step = parallel_step(lambda state, batch, shared: (state + shared, jnp.sum(batch)), devices)
    state = on_every_device(jnp.zeros(()), devices)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        step(state, np.zeros(4), np.float32(1))  # `shared` is not on the devices


@pytest.mark.parametrize("flag", [False, True])
def test_a_flag_reaches_every_device(flag):
    devices = jax.local_devices()
    step = parallel_step(lambda state, batch, shared: (state, jax.lax.pmean(0.0, AXIS)), devices)
    *_, raised = step(on_every_device(jnp.zeros(()), devices), np.zeros(4), flag=flag)
    assert bool(raised) is flag


def test_devices_get_the_patches_in_order():
    devices = jax.local_devices()
    rows = spread_over_devices({"a": np.arange(8)}, devices)["a"]
    assert rows.shape == (4, 2)
    for device, shard in zip(devices, rows.addressable_shards, strict=True):
        assert shard.device == device
    np.testing.assert_array_equal(rows, np.arange(8).reshape(4, 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1", None, 2), "missing: --process_id. Give"),
        ((None, 0, None), "missing: --coordinator and --num_processes. Give"),
        (("host:1", 2, 2), "--process_id is 2 and --num_processes is 2"),
        (("host:1", 0, 0), "--num_processes is 0"),
        (("host", 0, 2), "--coordinator is 'host'. Give HOST:PORT"),
        (("host:0", 0, 2), "--coordinator is 'host:0'. .* a port from 1 to 65535"),
        (("host:99999", 1, 2), "--coordinator is 'host:99999'. .* a port from 1 to 65535"),
        (("::1:80", 1, 2), "--coordinator is '::1:80'. .* an IPv6 address in brackets"),
        (("[]:80", 1, 2), "--coordinator is '..:80'. Give HOST:PORT"),
        (("host:port", 0, 2), "--coordinator is 'host:port'. Give HOST:PORT"),
    ],
)
def test_missing_and_invalid_flags_are_named(given, message, monkeypatch):
    set_environment(monkeypatch, {})
    with pytest.raises(InputError, match=message):
        join_processes(*given)


def test_a_process_stops_waiting_for_a_coordinator_that_does_not_answer(monkeypatch, capsys):
    monkeypatch.setattr(joining, "JOIN_S", 1)
    with socket.socket() as silent:  # bound, but not listening
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=f"--coordinator={address} cannot be reached"):
            join_processes(address, 1, 2)
    assert capsys.readouterr().out == f"waiting up to 1 s for process 0 at {address}\n"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_is_used_without_its_brackets(monkeypatch):
    started = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: started.append(given))
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        address = f"[::1]:{server.getsockname()[1]}"
        join_processes(address, 1, 2)
    assert [given["coordinator_address"] for given in started] == [address]


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_port_in_use_is_reported(host, capfd):
    with socket.create_server((host, 0)) as server:
        port = server.getsockname()[1]
        message = f"--coordinator=127.0.0.1:{port}: port {port} cannot be opened .* a free port"
        with pytest.raises(InputError, match=message):
            join_processes(f"127.0.0.1:{port}", 0, 2)
    assert "waiting" not in capfd.readouterr().out


def test_a_failed_connection_ends_with_a_message(monkeypatch):
    def fail(**_):
        raise jax.errors.JaxRuntimeError("UNKNOWN: Failed to start RPC server")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(InputError, match=r"to start RPC server.*another port for --coordinator"):
        join_processes("localhost:1234", 0, 2)


def test_processes_that_do_not_all_connect_end_with_a_message():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = (
        "from msseg_jax.training import joining; joining.JOIN_S = 1; "
        f"joining.join_processes({address!r}, 0, 2)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"(--num_processes=2, --coordinator={address}) did not all connect" in done.stderr
    assert "the same --num_processes" in done.stderr
    assert done.stdout == f"waiting for 1 more process at {address}\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "message", "traceback"),
    [
        (
            jax.errors.JaxRuntimeError("UNAVAILABLE: connection lost"), 1,
            "ends: perhaps because another process died: UNAVAILABLE: connection lost\n"
            "If so, run the same command again to resume from the last checkpoint.\n", False,
        ),
        (InputError("the port is in use"), 1, "ends: the port is in use\n", False),
        (KeyboardInterrupt(), EXIT_STATUS, f"ends: {INTERRUPTED}\n", False),
        (RuntimeError("a bug"), 1, "ends: a bug\n", True),
    ],
)  # fmt: skip
def test_one_of_several_processes_prints_why_it_ends(
    monkeypatch, capsys, error, status, message, traceback
):
    ended = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.os, "_exit", ended.append)
    try:
        raise error
    except BaseException as raised:
        processes.leave(raised)
    assert ended == [status]
    errors = capsys.readouterr().err
    assert errors.endswith(message)
    assert ("Traceback" in errors) == traceback


def test_a_signal_is_handled_while_a_process_waits_for_the_others():
    here = threading.main_thread().ident
    never = threading.Event()
    threading.Timer(0.2, signal.pthread_kill, (here, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        heeding_signals(lambda: never.wait(60))
    never.set()


def test_an_error_in_a_waiting_process_is_raised():
    with pytest.raises(InputError, match="it failed"):
        heeding_signals(lambda: (_ for _ in ()).throw(InputError("it failed")))
    assert heeding_signals(lambda: 7) == 7


def test_the_number_of_processes_and_devices_is_printed(monkeypatch, capsys):
    devices = [SimpleNamespace(process_index=k, device_kind="H100") for k in (0, 0, 1, 1)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    processes.agree_on("the same")
    expected = "2 processes train together on 4 devices (H100): 2 in each\n"
    assert capsys.readouterr().out == expected
    monkeypatch.setattr(jax, "devices", lambda: devices[:2])
    processes.agree_on("the same")
    assert capsys.readouterr().out == ""


def test_processes_with_different_numbers_of_devices_are_refused(monkeypatch):
    devices = [SimpleNamespace(process_index=k) for k in (0, 0, 1)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    with pytest.raises(InputError, match="process 0 has 2, process 1 has 1"):
        processes.agree_on("the same")


def set_environment(monkeypatch, environment):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


SLURM = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "0"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (SLURM, "2 processes .*--num_processes=.SLURM_STEP_NUM_TASKS .*--process_id=.SLURM_PROCID"),
        (OPEN_MPI, "3 processes .*--process_id=.OMPI_COMM_WORLD_RANK"),
    ],
)
def test_processes_that_a_launcher_started_must_be_connected(monkeypatch, environment, message):
    """Check that others are refused: each would train the whole run, in the same folder."""
    set_environment(monkeypatch, environment)
    with pytest.raises(InputError, match=message):
        join_processes(None, None, None)
    started = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: started.append(given))
    join_processes("localhost:1234", 0, 3)
    assert (started[0]["process_id"], started[0]["num_processes"]) == (0, 3)


@pytest.mark.parametrize("environment", [{}, SLURM | {"SLURM_STEP_NUM_TASKS": "1"}])
def test_one_process_trains_by_itself(monkeypatch, environment):
    set_environment(monkeypatch, environment)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("it waits"))
    join_processes(None, None, None)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only CPUs differ")
@pytest.mark.parametrize(
    ("dtype", "multiplies", "warned"),
    [("bfloat16", False, True), ("bfloat16", True, False), ("float32", False, False)],
)
def test_bfloat16_that_gains_little_is_warned_of(monkeypatch, caplog, dtype, multiplies, warned):
    monkeypatch.setattr(training_devices.native, "multiplies_bfloat16", lambda: multiplies)
    check_compute_dtype.__wrapped__(dtype)
    assert ("hardly faster than float32 here" in caplog.text) == warned
