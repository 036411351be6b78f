"""From a study's file to its jobs: pretrain → transfer → test, for every row and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple, Union

import yaml

from .job import Job, config_text, python
from .study_check import check_node, check_place, option_text, refuse_entries

EMBEDDINGS = 'embeddings.pkl'
"""In the folder of a pretraining: embeddings of the test images and their partners."""


class Study(NamedTuple):
    """A study, expanded.

    Attributes:
        name: Title.
        path: Its file.
        work_dir: Where jobs work.
        seeds: Of every training.
        jobs: In an order in which they can run.
        content: The file's content, e.g. ``tables`` for the report and ``slurm`` for the launcher.
    """

    name: str
    path: Path
    work_dir: Path
    seeds: Tuple[int, ...]
    jobs: Tuple[Job, ...]
    content: Dict[str, Any]


def read_study(path: Union[str, Path], root: Path, work_dir: Union[str, Path, None] = None) -> Study:
    """Read a study and expand it into jobs.

    A study is a YAML file::

        name: Table 1, micro
        work_dir: work_dirs/studies/micro
        seeds: [0, 1, 2]
        processes: 2                                  # of each training; a row or a column may say otherwise
        backbones:
          swin-micro:
            pretrain:                                 # the rows of a table; one of config, random, checkpoint
              random: {random: configs/demo/pretrain.py}
              nfn: {config: configs/demo/pretrain.py}
              shuffled: {config: configs/demo/pretrain.py, options: {train_dataloader.dataset.shuffle_pairs: '{seed}'}}
              imagenet: {checkpoint: swin_small.pth}
            transfer:                                 # the columns
              detect: {config: configs/demo/mask-rcnn_micro_fpn_demo.py}
              encode: {config: configs/demo/encoding.py, train: false}

    ``options`` are those of ``--cfg-options``, and ``{seed}`` in them is the seed. ``transfer`` of a row names the
    columns that it is for, all by default; a row with a ``config`` is also tested by it (retrieval). Paths of configs
    and checkpoints start from the repository, or from the current folder; a checkpoint may also be a URL. Entries whose
    name starts with ``x-`` are for YAML's anchors. ``paper`` of a backbone names the one of the paper whose figures
    stand beside its own. Studies that share a ``work_dir`` share their jobs of the same name.

    Args:
        path: The file.
        root: The repository, or the folder ``.mim`` of the installed package: where ``tools`` and ``configs`` are.
        work_dir: Instead of the file's own.

    Raises:
        FileNotFoundError: There is no such file, or a config or checkpoint that it names.
        ValueError: It is no study; the message names the entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'STUDY: there is no file {str(path)!r}.')
    try:
        content = yaml.safe_load(path.read_text('utf-8'))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f'STUDY: {path} is no YAML: {error}') from error
    check_node(content, 'study', str(path))
    for key in ('name', 'work_dir', 'seeds', 'backbones'):
        if not content.get(key):
            raise ValueError(f'STUDY: {path} has no {key}.')
    seeds = content['seeds']
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f'STUDY: seeds in {path} must be a list of different whole numbers, but is {seeds!r}.')
    work_dir = Path(work_dir or content['work_dir']).absolute()
    for place in (work_dir, root):
        check_place(place)
    expansion = _Expansion(path, root, work_dir, content)
    jobs = tuple(job for name, backbone in content['backbones'].items() for job in expansion.backbone(name, backbone))
    if not jobs:
        raise ValueError(f'STUDY: {path} has no pretrain under any of its backbones, so there is nothing to do.')
    return Study(content['name'], path, work_dir, tuple(seeds), jobs, content)


class _Expansion:
    """Makes the jobs of one study."""

    def __init__(self, path: Path, root: Path, work_dir: Path, content: Mapping):
        self.path, self.root, self.work_dir = path, root, work_dir
        self.seeds: Sequence[int] = content['seeds']
        self.processes = content.get('processes', 1)
        self._texts: Dict[Path, str] = {}
        self._fingerprints: Dict[str, str] = {}

    def backbone(self, name: str, node: Any) -> Iterator[Job]:
        """Jobs of all rows with one backbone."""
        where = f'{self.path}, backbones.{name}'
        check_node(node, 'backbone', where)
        rows, transfers = node.get('pretrain') or {}, node.get('transfer') or {}
        if 'pretrain' in transfers:
            raise ValueError(
                f"STUDY: {where}.transfer: 'pretrain' is the name of the pretraining itself; choose another."
            )
        for kind, entries in (('pretrain', rows), ('transfer', transfers)):
            for entry, content in entries.items():
                check_node(content, kind, f'{where}.{kind}.{entry}')
        for row, content in rows.items():
            wanted = content.get('transfer', list(transfers))
            unknown = [task for task in wanted if task not in transfers]
            if unknown:
                raise ValueError(f'STUDY: {where}.pretrain.{row}.transfer names {unknown[0]!r}, which is no transfer.')
            for seed in self.seeds:
                yield from self._row(name, row, content, seed, {task: transfers[task] for task in wanted}, where)

    def _row(self, backbone: str, row: str, node: Mapping, seed: int, transfers: Mapping, where: str) -> Iterator[Job]:
        """Pretraining of one row and seed, then its transfers."""
        start = [key for key in ('config', 'random', 'checkpoint') if key in node]
        if len(start) != 1:
            raise ValueError(f'STUDY: {where}.pretrain.{row} needs one of config, random and checkpoint, has {start}.')
        prefix = f'{backbone}/{row}/seed{seed}'
        labels = dict(backbone=backbone, row=row, seed=str(seed))
        folder = self.work_dir / prefix / 'pretrain'
        weights, needs = folder / 'backbone_latest.pth', (f'{prefix}/pretrain',)
        options = self._options(node, seed)
        refused = {'checkpoint': ('options', 'processes'), 'random': ('processes',)}.get(start[0], ())
        refuse_entries(node, refused, f'{where}.pretrain.{row}', f'a row with {start[0]} trains nothing')
        if start == ['checkpoint']:
            weights, needs = self._checkpoint(node['checkpoint']), ()
        elif start == ['random']:
            script, config = self.root / 'tools/model_converters/export_backbone.py', self._config(node['random'])
            command = python(script, '--random', config, weights, '--seed', seed, *self._cfg_options(options))
            yield self._job(needs[0], folder, (command,), (), (weights,), dict(labels, task='pretrain'), 1, config)
        else:
            config = self._config(node['config'])
            commands = (
                self._train(node, config, folder, {**options, 'randomness.seed': seed}),
                self._test(config, f'{{last_checkpoint:{folder}}}', folder, options, '--dump', folder / EMBEDDINGS),
            )
            outputs = (weights, folder / 'metrics.json', folder / EMBEDDINGS)
            processes = node.get('processes', self.processes)
            yield self._job(needs[0], folder, commands, (), outputs, dict(labels, task='pretrain'), processes, config)
        for task, transfer in transfers.items():
            yield self._transfer(prefix, task, transfer, seed, weights, needs, labels)

    def _transfer(
        self,
        prefix: str,
        task: str,
        node: Mapping,
        seed: int,
        weights: Union[str, Path],
        needs: Tuple[str, ...],
        labels: Mapping,
    ) -> Job:
        """Training and test of one task from one backbone; or the test alone, of the backbone itself."""
        if 'config' not in node:
            raise ValueError(f'STUDY: {self.path} has a transfer {task!r} without config.')
        if not node.get('train', True):
            refuse_entries(
                node, ('processes',), f'{self.path}, transfer {task}', 'with train: false it is a test alone'
            )
        folder, config, options = self.work_dir / prefix / task, self._config(node['config']), self._options(node, seed)
        if node.get('train', True):
            training = {'model.backbone.init_cfg.checkpoint': weights, **options, 'randomness.seed': seed}
            commands = [
                self._train(node, config, folder, training),
                self._test(config, f'{{last_checkpoint:{folder}}}', folder, options),
            ]
        else:
            commands = [self._test(config, weights, folder, options)]
        return self._job(
            f'{prefix}/{task}',
            folder,
            tuple(commands),
            needs,
            (folder / 'metrics.json',),
            dict(labels, task=task),
            node.get('processes', self.processes) if node.get('train', True) else 1,
            config,
        )

    def _train(self, node: Mapping, config: Path, folder: Path, options: Mapping) -> Tuple[str, ...]:
        flags = ['--work-dir', str(folder), '--resume', 'auto', *self._cfg_options(options)]
        processes = node.get('processes', self.processes)
        if processes > 1:
            return ('bash', str(self.root / 'tools/dist_train.sh'), str(config), str(processes), *flags)
        return python(self.root / 'tools/train.py', config, *flags)

    def _test(
        self, config: Path, checkpoint: Union[str, Path], folder: Path, options: Mapping, *more: Union[str, Path]
    ) -> Tuple[str, ...]:
        flags = ['--work-dir', folder / 'test', '--out', folder / 'metrics.json', *more, *self._cfg_options(options)]
        return python(self.root / 'tools/test.py', config, checkpoint, *flags)

    @staticmethod
    def _options(node: Mapping, seed: int) -> Dict[str, Any]:
        def filled_in(value: Any) -> Any:
            if isinstance(value, list):
                return [filled_in(entry) for entry in value]
            return value.replace('{seed}', str(seed)) if isinstance(value, str) else value

        return {key: filled_in(value) for key, value in (node.get('options') or {}).items()}

    @staticmethod
    def _cfg_options(options: Mapping) -> List[str]:
        if not options:
            return []
        return ['--cfg-options', *(f'{key}={option_text(key, value)}' for key, value in options.items())]

    def _config(self, name: str) -> Path:
        return self._file('config', name)

    def _checkpoint(self, name: str) -> Union[str, Path]:
        weights = name if '://' in name else self._file('checkpoint', name)
        check_place(weights)
        return weights

    def _file(self, kind: str, name: str) -> Path:
        """Path of a file that the study names, from the repository or from the current folder."""
        for path in (self.root / name, Path(name)):
            if path.is_file():
                return path.absolute()
        raise FileNotFoundError(
            f'STUDY: {self.path} names the {kind} {name!r}, which is neither in {self.root} nor here.'
        )

    def _job(
        self,
        name: str,
        folder: Path,
        commands: Tuple[Tuple[str, ...], ...],
        needs: Tuple[str, ...],
        outputs: Tuple[Path, ...],
        labels: Dict[str, str],
        processes: int,
        config: Path,
    ) -> Job:
        """A job, with all that its result depends on."""
        if config not in self._texts:
            self._texts[config] = config_text(config)
        upstream = tuple(self._fingerprints[need] for need in needs)
        places = (str(self.work_dir), str(self.root))
        job = Job(
            name, folder, commands, needs, outputs, labels, processes, config, self._texts[config], upstream, places
        )
        self._fingerprints[name] = job.fingerprint
        return job
