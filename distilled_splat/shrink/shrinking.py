"""The whole job: cameras, a capture of the splat's own renders, a student of each size, files, and what was lost."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import torch
from rich.console import Console
from rich.progress import track

from distilled_splat.ops.importance import importance
from distilled_splat.ops.space import Space
from distilled_splat.ops.views import View
from distilled_splat.runs.files import write_beside, write_json
from distilled_splat.runs.fingerprints import digest
from distilled_splat.runs.lock import lock_run
from distilled_splat.shrink.camera_choice import choose_reading
from distilled_splat.shrink.capture import write_capture
from distilled_splat.shrink.given_cameras import read_cameras
from distilled_splat.shrink.invented_cameras import FIELD_OF_VIEW, Invented, invent, looking, sharpness
from distilled_splat.shrink.measure import Row, compared, pictures
from distilled_splat.shrink.refit import Plan, refit
from distilled_splat.shrink.sizes import Size
from distilled_splat.shrink.unit_frame import UnitFrame
from distilled_splat.splat.formats import Format, encode_ply, with_degree
from distilled_splat.splat.gaussians import Gaussians
from distilled_splat.student.pruning import choose
from distilled_splat.student.virtual_views import views_between
from distilled_splat.teachers.ensemble import TeacherEnsemble
from distilled_splat.teachers.reading import Teacher, read_teacher
