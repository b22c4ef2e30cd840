"""A job as a process: settings, the stage, its summary, and the exit status."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.settings.command_line import load_config
from pipelines.settings.machine_errors import describe_machine_error
from pipelines.settings.section import SectionT
from pipelines.settings.terminal import seen_from_here
from t3d_core.errors import UserError


def run_job(
    config_class: type[SectionT],
    run: Callable[[SectionT], str],
    *,
    quickstart: Path,
    argv: Sequence[str] | None = None,
) -> None:
    """Load the config, run the stage on it and print the summary that it returns.

    Raises:
        SystemExit: as `load_config`; 1 when the run failed, 130 when it was interrupted, with one last line on stderr.
    """
    # Pictures go into files. A notebook sets a backend for its cells, which the environment of a job may lack.
    os.environ["MPLBACKEND"] = "agg"
    argv = sys.argv[1:] if argv is None else argv
    config = load_config(config_class, argv=argv, quickstart=quickstart, program=f"python {sys.argv[0]}")
    # `ray job stop` and Kubernetes end a job by SIGTERM: it closes its MLflow run as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _check_home()
        print(seen_from_here(run(config)))
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        cause = getattr(error, "cause", None) or error  # what a Ray task raised is carried by Ray's own error
        of_machine = describe_machine_error(cause)
        message = " ".join((of_machine or str(cause)).split())
        if not isinstance(cause, UserError) and of_machine is None:
            traceback.print_exception(error)
            message = f"{type(cause).__name__}: {message}"
        sys.stdout.flush()
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None


def _check_home() -> None:
    """Refuse a user without a home folder, because MLflow cannot even be imported then.

    Raises:
        UserError: HOME is not set, and the system does not know this user.
    """
    if os.path.expanduser("~") == "~":
        raise UserError(f"user {os.getuid()} of this machine has no home folder: set HOME to a folder, such as /tmp")
