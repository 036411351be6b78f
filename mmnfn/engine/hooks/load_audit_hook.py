"""A hook that says which weights were loaded, and stops where a backbone did not get all of them."""

from __future__ import annotations

from typing import Dict, Optional

from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop
from mmengine.runner.checkpoint import find_latest_checkpoint
from torch import nn

from mmnfn.registry import HOOKS

from ..annotation_check import check_labels
from ..checkpoint import Checkpoint, literal_config, local_copy, read_checkpoint
from ..load_audit import LoadAudit, LoadAuditError, audit_load, pretrained_modules
from ..run_config import check_controls


@HOOKS.register_module()
class LoadAuditHook(Hook):
    """Compare the model with the checkpoints it was loaded from, and stop if a backbone is not wholly theirs.

    - ``init_cfg=dict(type='Pretrained', …)``: before the library's loader opens the file, the hook reads it without
      running anything in it, and compares keys and shapes; after loading it compares values.
      Anything short of every weight ends the run, but for norms of stages that pretraining did not use.
    - ``load_from`` in training: the same for the model's backbone; other parts may differ, unless they are to be
      adapted to a new person (``train_maps_only``).
    - the checkpoint of a test: the same for the whole model; the classes that it was trained on have to be those of the
      dataset, in the same order. The data must be arranged as in the training that its metadata tell of, and metrics
      with a method ``note_training`` get these metadata.
    - ``resume``: the file is only looked at before it is opened.

    Raises:
        LoadAuditError: In the methods that mmengine calls, where a file cannot be read, would run code, or did not load
            wholly.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._init: Dict[str, Optional[Checkpoint]] = {}
        self._loaded: Optional[Checkpoint] = None

    def before_run(self, runner) -> None:
        """Look at the files before anything opens them."""
        path = runner._load_from
        if runner._resume and not path:
            path = find_latest_checkpoint(runner.work_dir)
        if path:
            _read(path, 'checkpoint')
        if isinstance(runner._train_loop, BaseLoop):  # the loop of the mode that runs has been built by now
            for name, module, init_cfg in pretrained_modules(_model(runner)):
                path = init_cfg['checkpoint']
                if path not in self._init:
                    self._init[path] = _read(path, f'model.{name}.init_cfg.checkpoint')
                if self._init[path] is None:
                    runner.logger.warning(f'{path} is not a local file: what it loaded is not audited.')
                    continue
                audit = audit_load(name, module, self._init[path], init_cfg.get('prefix'), loaded=False)
                if audit.problem:
                    _report(runner, audit)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep the weights that MMEngine loads; look at what the checkpoint of a test says of its training."""
        if not runner._resume:
            self._loaded = _explained(Checkpoint.of, checkpoint, runner._load_from, 'checkpoint')
        if not isinstance(runner._test_loop, BaseLoop):
            return
        meta = checkpoint.get('meta') or {}
        trained = literal_config(str(meta.get('cfg')))
        if runner.cfg.get('train_dataloader') and trained.get('train_dataloader'):
            try:
                check_controls(runner.cfg, ('test_dataloader',), trained)
            except ValueError as error:
                raise LoadAuditError(f'{runner._load_from}: {error}') from error
        for metric in getattr(runner._test_loop.evaluator, 'metrics', []):
            if hasattr(metric, 'note_training'):
                metric.note_training(meta)

    def before_train(self, runner) -> None:
        """Compare values, after weights were initialised and ``load_from`` was loaded."""
        if self._loaded is not None:
            name, model = 'model', _loaded_model(runner)
            if hasattr(model, 'backbone') and not getattr(model, 'train_maps_only', False):
                # in a module of its own, as MMEngine loaded it: by the keys of the model, not by the backbone's loader
                name, model = 'backbone', nn.ModuleDict(dict(backbone=model.backbone))
            _report(runner, audit_load(name, model, self._loaded))
        elif not runner._has_loaded:
            for name, module, init_cfg in pretrained_modules(_model(runner)):
                checkpoint = self._init[init_cfg['checkpoint']]
                if checkpoint is not None:
                    _report(runner, audit_load(name, module, checkpoint, init_cfg.get('prefix')))
        self._init, self._loaded = {}, None

    def before_test(self, runner) -> None:
        """Compare the whole model with its checkpoint, and the classes of both."""
        if self._loaded is None:
            return
        checkpoint, self._loaded = self._loaded, None
        _report(runner, audit_load('model', _loaded_model(runner), checkpoint))
        dataset = runner.test_dataloader.dataset
        trained = (checkpoint.meta.get('dataset_meta') or {}).get('classes')
        tested = getattr(dataset, 'metainfo', {}).get('classes')
        # with return_classes the classes are words for the model, not labels
        if trained and tested and not getattr(dataset, 'return_classes', False):
            source = f'{checkpoint.path}, which was trained on them,'
            _explained(check_labels, source, trained, 'the dataset', tested)


def _explained(function, *args):
    """Call a function whose ValueErrors and missing files end the run with their one line."""
    try:
        return function(*args)
    except (FileNotFoundError, ValueError) as error:
        raise LoadAuditError(str(error)) from error


def _read(path: str, argument: str) -> Optional[Checkpoint]:
    """Read a checkpoint; None for one that is not a file of this machine."""
    copy = _explained(local_copy, path)
    return None if copy is None else _explained(read_checkpoint, copy, argument)


def _report(runner, audit: LoadAudit) -> None:
    """Log the coverage, or the table of all weights with the problem that it raises."""
    if is_main_process():
        runner.logger.info(f'Load audit\n{audit.table()}' if audit.problem else audit.summary())
    if audit.problem:
        raise LoadAuditError(audit.problem)


def _loaded_model(runner) -> nn.Module:
    """Return what a checkpoint's ``state_dict`` was loaded into.

    With an EMAHook these are the averaged weights: it swaps them with the model's before each test, and in MMPretrain
    has the others in the model until then.
    """
    averaged = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
    return averaged[0] if averaged else _model(runner)


def _model(runner) -> nn.Module:
    """Return the model inside DDP and test-time augmentation."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
