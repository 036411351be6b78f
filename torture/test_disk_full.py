"""A full disk at every writer: an error that names the file, nothing half-written, and all well when there is room."""

import shutil
from pathlib import Path

import pytest
from algonauts_tree import write_tree
from commands import ROOT, run, succeed, tool
from disks import file_size_limit, nearly_full, small_disk

KB, MB = 1 << 10, 1 << 20
SIMULATE = '--subjects 1 --sessions 1 --voxel-mm 4.5 --stimulus-size 32 --workers 1 --downstream 30 3 20 3'


class Writers:
    """Command lines of what writes files, each into a folder of its own.

    A method returns the command, the file whose name the error must have, and for how many bytes there is room, or may
    be in one file: less than it writes.
    """

    def __init__(self, world, store, work, algonauts):
        self.world, self.store, self.work, self.algonauts = world, store, work, algonauts
        self.checkpoint = Path((work / 'last_checkpoint').read_text())
        self.stim_info = world / 'nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv'

    def simulate_pictures(self, out):
        return tool('simulate_nsd', out / 'sim', '--overwrite', *SIMULATE.split()), 'sim', 100 * KB

    def simulate_betas(self, out):
        return tool('simulate_nsd', out / 'sim', '--overwrite', *SIMULATE.split()), 'sim', 6 * MB

    def prepare(self, out):
        command = tool('prepare_nsd', self.world / 'nsd', out / 'store', '--subjects', 1)
        return command, 'store/subj01.h5', 2 * MB

    def prepare_pictures(self, out):
        rois = ('--subjects', 1, '--rois', 'floc-words')
        command = tool('prepare_nsd', self.world / 'nsd', out / 'store', *rois, '--image-size', 160)
        return command, 'store/images_160.h5', 10 * MB

    def algonauts_responses(self, out):
        command = tool('prepare_algonauts', self.algonauts, out, '--fsaverage', self.algonauts / 'fsaverage')
        return command, 'subj01.h5', 1 * MB

    def algonauts_pictures(self, out):
        command = tool('prepare_algonauts', self.algonauts, out, '--fsaverage', self.algonauts / 'fsaverage')
        return [*command, '--image-size', '400'], 'images_400.h5', 10 * MB

    def coco_copy(self, out):
        annotations = self.world / 'coco/annotations/instances_train2017.json'
        command = tool('coco_nsd_overlap', self.stim_info, '--annotations', annotations, '--out', out, '--overwrite')
        return command, 'instances_train2017_without_nsd.json', 4 * KB

    def coco_ids(self, out):
        return tool('coco_nsd_overlap', self.stim_info, '--ids', out / 'ids.json', '--overwrite'), 'ids.json', 1 * KB

    def export(self, out):
        return tool('model_converters/export_backbone', self.checkpoint, out / 'b.pth'), 'b.pth', 256 * KB

    def publish(self, out):
        return tool('model_converters/publish_model', self.checkpoint, out / 'published'), 'published/', 256 * KB

    def report(self, out):
        study = ROOT / 'studies/tables_1-2_micro.yml'
        command = tool('experiments/report', study, '--work-dir', out.parent / 'no_jobs', '--out', out / 'report')
        return command, 'report/report.html', 14 * KB  # the tables before it take a page of 4 KB each

    def _test(self, out, config, checkpoint, *arguments):
        options = [f'data_root={self.store}', f'test_dataloader.dataset.data_root={self.store}']
        command = tool('test', config, checkpoint, '--work-dir', out.parent.parent / 'logs', *arguments[:2])
        return [*command, '--cfg-options', *options, *arguments[2:]]

    def metrics(self, out):
        config = ROOT / 'torture/configs/pretrain.py'
        return self._test(out, config, self.checkpoint, '--out', out / 'metrics.json'), 'metrics.json', 0

    def embeddings(self, out):
        config = ROOT / 'torture/configs/pretrain.py'
        return self._test(out, config, self.checkpoint, '--dump', out / 'dump.pkl'), 'dump.pkl', 64 * KB

    def encoding_map(self, out):
        options = [f'test_evaluator.map_dir={out}', f'test_evaluator.data_root={self.store}']
        config, backbone = ROOT / 'torture/configs/encoding.py', self.work / 'backbone_latest.pth'
        unused = ('--out', out.parent.parent / 'unused.json')
        return self._test(out, config, backbone, *unused, *options), 'subj02_pcc.nii.gz', 0


# What makes a command write again that keeps a file which is whole.
ANEW = {'prepare': ('--dtype', 'float16'), 'prepare_pictures': ('--subjects', '1', '2')}
NAMES = [name for name in vars(Writers) if not name.startswith('_')]
# Of the others, what is written beside the file is larger than the file, so a limit would meet that.
WITH_LIMIT = [name for name in NAMES if name not in ('metrics', 'embeddings', 'encoding_map')]


@pytest.fixture(scope='module')
def writers(world, store, unbroken, tmp_path_factory):
    return Writers(world, store, unbroken('pretrain')[0], write_tree(tmp_path_factory.mktemp('algonauts') / 'tree'))


def files(folder):
    """Path → content of all that is in a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def check_error(outcome, out, target):
    """It ended with one line that names the file and says what to do."""
    assert outcome.code not in (0, None) and outcome.code > 0, outcome.output
    last = outcome.output.strip().splitlines()[-1]
    assert ': error: ' in last and str(out / target) in last and 'ree space' in last, outcome.output
    assert 'Traceback' not in outcome.output, outcome.output


def check_nothing_new(before, out, target):
    """Under the name of the target is what was there before, and nothing is left of the attempt.

    Files that were complete by then may be there.
    """
    after = files(out)
    changed = {path for path in after if after[path] != before.get(path)}
    assert not [path for path in before if path not in after]
    assert not [path for path in changed if str(path).startswith(target) or path.suffix in ('.part', '.tmp')], changed
    folders = [path.name for path in out.rglob('*') if path.is_dir() and path.name.endswith(('.part', '.partial'))]
    assert not folders, folders


@pytest.mark.parametrize('name', NAMES)
def test_full_disk(writers, tmp_path, name):
    """Full at the first attempt; then there is room; then it is full when the file is there already."""
    with small_disk(tmp_path / 'disk') as disk:
        out = disk / name
        out.mkdir()
        command, target, room = getattr(writers, name)(out)
        with nearly_full(disk, room):
            check_error(run(command, tmp_path / 'first'), out, target)
            check_nothing_new({}, out, target)
        succeed(command, tmp_path / 'second')
        assert (out / target).exists()
        before = files(out)
        with nearly_full(disk, room):
            if name in ANEW:
                succeed(command, tmp_path / 'kept')
                assert files(out) == before
                command = [*command, *ANEW[name]]
            check_error(run(command, tmp_path / 'third'), out, target)
            check_nothing_new(before, out, target)


@pytest.mark.parametrize('name', WITH_LIMIT)
def test_file_size_limit(writers, tmp_path, name):
    out = tmp_path / name
    out.mkdir()
    command, target, limit = getattr(writers, name)(out)
    check_error(run(command, tmp_path / 'first', preexec_fn=file_size_limit(limit)), out, target)
    check_nothing_new({}, out, target)
    succeed(command, tmp_path / 'second')
    assert (out / target).exists()
    shutil.rmtree(out)
