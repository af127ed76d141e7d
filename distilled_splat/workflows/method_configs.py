"""The methods: a teacher, a student, and a student with the paper's own schedule."""

import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from distilled_splat.runs.checkpoints import allow_numpy_scalars
from distilled_splat.student.model import DistilledModelConfig
from distilled_splat.teachers.kinds import TeacherModelConfig
from distilled_splat.training.datamanager import PortableDatamanagerConfig
from distilled_splat.training.model import PortableSplatfactoModelConfig
from distilled_splat.training.optimizers import splat_optimizers
from distilled_splat.training.trainer import ResumableTrainerConfig
from distilled_splat.workflows.distill import DistilledTrainerConfig
from distilled_splat.workflows.teacher_configs import TEACHER_METHOD

# every ns-* command imports this module, through `methods`, before it opens a checkpoint
allow_numpy_scalars()


def trainer_options(method_name: str, model: PortableSplatfactoModelConfig, cooldown: bool = False) -> dict:
    """Return the options that all our methods share: data, device, viewer, optimizers, steps to save and evaluate."""
    return {
        "method_name": method_name,
        "max_num_iterations": 30000,
        "steps_per_eval_batch": 0,
        "steps_per_eval_image": 500,
        "steps_per_eval_all_images": 5000,
        "pipeline": VanillaPipelineConfig(
            datamanager=PortableDatamanagerConfig(
                dataparser=NerfstudioDataParserConfig(load_3D_points=True), cache_images_type="uint8"
            ),
            model=model,
        ),
        "optimizers": splat_optimizers(cooldown),
        "machine": MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu"),
        "viewer": ViewerConfig(num_rays_per_chunk=1 << 15, websocket_host="127.0.0.1"),
        # with the viewer alone, nerfstudio never evaluates
        "vis": "viewer+tensorboard",
    }


splatfacto_teacher = MethodSpecification(
    config=ResumableTrainerConfig(**trainer_options(TEACHER_METHOD, TeacherModelConfig())),
    description="Splatfacto on any device, plain, perturbed or with dropout: a teacher of Distilled-3DGS.",
)

distilled_splatfacto = MethodSpecification(
    config=DistilledTrainerConfig(**trainer_options("distilled-splatfacto", DistilledModelConfig(), cooldown=True)),
    description="Distilled-3DGS: trains (or takes) several teachers, then a student of a fraction of their size.",
)

distilled_splatfacto_paper = MethodSpecification(
    config=DistilledTrainerConfig(
        **trainer_options(
            "distilled-splatfacto-paper",
            DistilledModelConfig(
                start_from="points",
                stop_split_at=15000,
                prune_start=15000,
                prune_stop=15000,
                prune_times=1,
                prune_importance="weight",
                prune_sampling=True,
                lambda_kd=1.0,
                virtual_fraction=0.0,
                min_teacher_advantage=0.0,
                full_overfit_gap=0.0,
                max_teacher_disagreement=0.0,
                lambda_depth=0.0,
                lambda_structure=1.0,
                structure_of="centres",
                structure_resolutions=(128,),
                structure_every=500,
                lr_boost=0.0,
            ),
        )
    ),
    description="Distilled-3DGS by the paper's own schedule: from the points, pruned once, by sampling, at half of it.",
)
