"""The kernel that renders: this interpreter, files in one folder, killed from anywhere."""

import asyncio
import sys

from perflab.report.kernel import OwnKernel


def test_it_is_this_interpreter_with_all_its_files_in_one_folder(tmp_path):
    """No kernel specification of the machine is looked at, and every folder Jupyter makes lies in ours."""
    # When
    kernel = OwnKernel.in_folder(tmp_path)
    # Then
    assert kernel.format_kernel_cmd()[0] == sys.executable
    assert all(
        str(tmp_path) in value for name, value in kernel.kernel_spec.env.items() if name.endswith("_DIR")
    )
    assert kernel.connection_file == str(tmp_path / "kernel.json")
    kernel.close()


def test_a_long_folder_falls_back_to_ports(tmp_path):
    """A socket's path may have 107 characters; a longer folder still gets a kernel."""
    # When
    short = OwnKernel.in_folder(tmp_path.parent if len(str(tmp_path)) > 80 else tmp_path)
    long = OwnKernel.in_folder(tmp_path / ("x" * 90))
    # Then
    assert long.transport == "tcp"
    assert short.transport == ("ipc" if len(str(tmp_path)) <= 80 else short.transport)
    short.close()
    long.close()


def test_killing_before_the_start_and_twice_is_harmless(tmp_path):
    """Every way out kills the kernel, also the way out before there is one."""
    # Given
    kernel = OwnKernel.in_folder(tmp_path)
    # When
    kernel.kill()

    async def start():
        await kernel.start_kernel()
        return kernel.provisioner.process.pid

    asyncio.run(start())
    process = kernel.provisioner.process
    kernel.kill()
    kernel.kill()
    # Then
    assert process.poll() is not None
    kernel.close()
