"""report.html."""

from etils import epath

from lmsi_jax.core.records import write_text


def write_report(workdir: epath.Path) -> epath.Path:
    write_text(workdir / "report.html", "<html></html>")
    return workdir / "report.html"
