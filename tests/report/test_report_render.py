"""Rendering: everything or an explanation, and nothing left running either way."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import nbformat
import pytest

from perflab.errors import ConfigError, ReportError
from perflab.report.render import render

PARAMETERS = {"n": {"type": "int", "required": True}, "pid_file": {"type": "str"}}


def template(folder, *sources, name="some.ipynb"):
    """Write a template whose cells are given; the first is the parameters cell."""
    cells = [nbformat.v4.new_code_cell('params_file = ""', metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(textwrap.dedent(source).strip()) for source in sources]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"perflab": {"parameters": PARAMETERS}})
    path = folder / name
    nbformat.write(notebook, path)
    return path


READ = """
import perflab as pf
params = pf.report.read_params(params_file)
"""
TELL_PID = """
import os, pathlib
pathlib.Path(params["pid_file"]).write_text(str(os.getpid()))
"""
HANG = "import time\ntime.sleep(3600)"


def texts(path):
    """Return the plain text of every output."""
    cells = nbformat.read(path, as_version=4).cells
    return ["".join(output.data["text/plain"]) for cell in cells for output in cell.get("outputs", [])]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]


def within(seconds, condition):
    """Poll a condition until it holds or the time is over."""
    ends_at = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < ends_at:
        time.sleep(0.02)
    return found


def test_parameters_reach_the_notebook_and_the_kernel_is_this_interpreter(tmp_path):
    """What was given is read from the file, by the Python that runs the tests; the metadata records it."""
    # Given
    source = template(tmp_path, READ, "import sys\n(params['n'], sys.executable)")
    # When
    into = render(source, {"n": 7}, tmp_path / "deep" / "out.ipynb")
    # Then
    assert texts(into) == [repr((7, sys.executable))]
    assert json.loads(into.read_text())["metadata"]["perflab"]["given"] == {"n": 7}
    assert sorted(path.name for path in into.parent.iterdir()) == ["out.ipynb"]


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    """No time, path, random id or version of a run is left in the executed notebook."""
    # Given
    source = template(tmp_path, READ, "params['n'] * 6")
    # When
    one = render(source, {"n": 7}, tmp_path / "one.ipynb").read_bytes()
    other = render(source, {"n": 7}, tmp_path / "other.ipynb").read_bytes()
    # Then
    assert one == other


def test_hostile_parameters_stay_data(tmp_path):
    """A value that would be code if it were pasted into a cell arrives as the text it is."""
    # Given
    hostile = '\'); raise SystemExit(1)  # """\n<script>{{ x }}</script>\\'
    source = template(tmp_path, READ, "params['pid_file']")
    # When
    into = render(source, {"n": 1, "pid_file": hostile}, tmp_path / "out.ipynb")
    # Then
    assert texts(into) == [repr(hostile)]


def test_wrong_parameters_are_refused_before_a_kernel_starts(tmp_path):
    """Neither notebook nor remains of one appear."""
    # Given
    source = template(tmp_path, READ)
    # When
    began = time.monotonic()
    with pytest.raises(ConfigError, match="unknown parameter 'm'"):
        render(source, {"m": 1}, tmp_path / "out.ipynb")
    # Then
    assert time.monotonic() - began < 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["some.ipynb"]


def test_a_failed_cell_is_named_and_the_partial_notebook_kept(tmp_path):
    """The message has the cell's number in the template, its first line and the error; no output appears."""
    # Given
    source = template(tmp_path, READ, "six = 6", "# divide\n1 / (six - 6)")
    # When
    with pytest.raises(ReportError) as failed:
        render(source, {"n": 1}, tmp_path / "out.ipynb")
    # Then
    message = str(failed.value)
    assert "cell 4 of some.ipynb failed: ZeroDivisionError: division by zero" in message
    assert "the cell begins: # divide" in message
    assert failed.value.exit_code == 3
    assert not (tmp_path / "out.ipynb").exists()
    assert "ZeroDivisionError" in (tmp_path / "out.ipynb.failed.ipynb").read_text()


def test_a_failure_leaves_the_last_good_notebook_alone(tmp_path):
    """What was rendered before stays; a later success takes the failed one away."""
    # Given
    into = tmp_path / "out.ipynb"
    good = template(tmp_path, READ, "'good'")
    bad = template(tmp_path, READ, "1 / 0", name="bad.ipynb")
    render(good, {"n": 1}, into)
    before = into.read_bytes()
    # When
    with pytest.raises(ReportError):
        render(bad, {"n": 1}, into)
    # Then
    assert into.read_bytes() == before
    render(good, {"n": 1}, into)
    assert not (tmp_path / "out.ipynb.failed.ipynb").exists()


def test_the_deadline_ends_everything(tmp_path):
    """A cell that hangs: the kernel is gone, the message says how far it got, what ran is kept."""
    # Given
    pid_file = tmp_path / "pid"
    source = template(tmp_path, READ, TELL_PID, HANG)
    # When
    with pytest.raises(ReportError, match=r"deadline of 15 s after \d of 5 cells"):
        render(source, {"n": 1, "pid_file": str(pid_file)}, tmp_path / "out.ipynb", deadline_s=15)
    # Then
    assert not is_alive(int(pid_file.read_text()))
    assert (tmp_path / "out.ipynb.failed.ipynb").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "perflab-render"]


def test_it_can_be_cancelled_from_another_thread(tmp_path):
    """The caller changes its mind as soon as the kernel runs."""
    # Given
    pid_file = tmp_path / "pid"
    source = template(tmp_path, READ, TELL_PID, HANG)
    cancelled = threading.Event()
    failures = []

    def rendering():
        try:
            render(source, {"n": 1, "pid_file": str(pid_file)}, tmp_path / "out.ipynb", cancelled=cancelled)
        except ReportError as error:
            failures.append(error)

    thread = threading.Thread(target=rendering)
    thread.start()
    # When
    assert within(60, lambda: pid_file.exists() and pid_file.read_text())
    cancelled.set()
    thread.join(30)
    # Then
    assert "ended by its caller" in str(failures[0])
    assert not is_alive(int(pid_file.read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_running_when_the_process_is_ended(tmp_path, number):
    """After Ctrl-C the kernel is killed; after a kill -9 it notices that its parent is gone."""
    # Given
    pid_file = tmp_path / "pid"
    source = template(tmp_path, READ, TELL_PID, HANG)
    code = (
        "import sys; from pathlib import Path; from perflab.report.render import render; "
        f"render(Path({str(source)!r}), {{'n': 1, 'pid_file': {str(pid_file)!r}}}, "
        f"Path({str(tmp_path / 'out.ipynb')!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
    )
    # When
    assert within(60, lambda: pid_file.exists() and pid_file.read_text())
    process.send_signal(number)
    process.wait(30)
    # Then
    kernel = int(pid_file.read_text())
    assert within(20, lambda: not is_alive(kernel))
    assert not (tmp_path / "out.ipynb").exists()


def test_home_stays_empty(tmp_path):
    """Neither Jupyter nor IPython leaves anything in HOME, and no kernel needs to be registered there."""
    # Given
    home = tmp_path / "home"
    home.mkdir()
    source = template(tmp_path, READ, "params['n']")
    code = (
        "from pathlib import Path; from perflab.report.render import render; "
        f"render(Path({str(source)!r}), {{'n': 1}}, Path({str(tmp_path / 'out.ipynb')!r}))"
    )
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUPYTER", "IPYTHON", "XDG"))
    }
    # When
    subprocess.run([sys.executable, "-c", code], check=True, env={**kept, "HOME": str(home)}, timeout=120)
    # Then
    assert texts(tmp_path / "out.ipynb") == ["1"]
    assert list(home.iterdir()) == []
