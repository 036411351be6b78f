"""Lay out small samples of real COCO and ADE20K data in the layouts of the two datasets, for tools/dev/real_smoke.sh.

  lay_out_real_data.py REAL_DATA OUT

REAL_DATA holds coco128/ and ade20k_sample/. OUT gets coco/ (96 images to train, 32 to test, crowd annotations and
images without annotations kept) and ADEChallengeData2016/ (the same three images to train and to test).
"""

import json
import sys
from pathlib import Path


def split_coco(source: Path, out: Path) -> None:
    """Write two annotation files: every fourth image, by id, is for testing."""
    content = json.loads((source / 'annotations' / 'instances_train2017.json').read_text('utf-8'))
    images = sorted(content['images'], key=lambda image: image['id'])
    splits = dict(train2017=[image for index, image in enumerate(images) if index % 4], val2017=images[::4])
    (out / 'annotations').mkdir(parents=True)
    for name, chosen in splits.items():
        (out / name).symlink_to((source / 'train2017').resolve())
        ids = {image['id'] for image in chosen}
        annotations = [annotation for annotation in content['annotations'] if annotation['image_id'] in ids]
        (out / 'annotations' / f'instances_{name}.json').write_text(
            json.dumps(dict(content, images=chosen, annotations=annotations)), encoding='utf-8'
        )
        crowds = sum(annotation.get('iscrowd', 0) for annotation in annotations)
        empty = len(ids - {annotation['image_id'] for annotation in annotations})
        print(
            f'{name}: {len(chosen)} images ({empty} without annotations), {len(annotations)} annotations '
            f'({crowds} crowds)'
        )


def lay_out_ade(source: Path, out: Path) -> None:
    """Link the sample's images and label maps into ADE20K's folders."""
    for split in ('training', 'validation'):
        for kind, suffix in (('images', '.jpg'), ('annotations', '.png')):
            folder = out / kind / split
            folder.mkdir(parents=True)
            for path in sorted(source.glob(f'ADE_*{suffix}')):
                (folder / path.name).symlink_to(path.resolve())
    print(f'ADE20K: {len(list(folder.iterdir()))} images')


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    real, out = Path(sys.argv[1]), Path(sys.argv[2])
    split_coco(real / 'coco128', out / 'coco')
    lay_out_ade(real / 'ade20k_sample', out / 'ADEChallengeData2016')
    return 0


if __name__ == '__main__':
    sys.exit(main())
