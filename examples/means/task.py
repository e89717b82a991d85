"""Handwritten digits by the nearest class mean: 64 grey values, ten classes, 650 parameters that are learned in one round."""

from edgemw.compile.sketch import ClassMeans, own_class
from edgemw.compile.task import Task

task = Task(
    "means",
    lambda: ClassMeans(64, 10, clip=3.5),
    loss=own_class,
    input=(64,),
    target=((), "int64"),
    classes=10,
    metrics=("accuracy",),
    training={"lr": 1.0},
)
