"""The one thing that pyproject.toml cannot say: an extension that may fail to build, after which numpy does its work."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "edgemw.compression._golomb",
            ["edgemw/compression/_golomb.c"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=["-O3"],  # also where CFLAGS replaces the defaults
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
