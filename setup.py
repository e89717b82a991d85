"""The one thing that pyproject.toml cannot say: extensions that may fail to build, after which Python does their work."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            f"edgemw.compression.{name}",
            [f"edgemw/compression/{name}.c"],
            depends=["edgemw/compression/_coder.h", "edgemw/compression/_extension.h"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=["-O3"],  # also where CFLAGS replaces the defaults
            py_limited_api=True,
            optional=True,
        )
        for name in ("_golomb", "_rangecoder")
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
