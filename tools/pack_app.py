"""Put the built app and its sources among the package's own files, for `edgebert app` of an installed package.

    PYTHONPATH=. python tools/pack_app.py

`make app` ends with it. What it writes is not kept in the repository.
"""

import shutil

from edgebert.app import archive, sources, template
from edgebert.app.archive import Entry
from edgebert.files import replaced


def main() -> None:
    """Copy the template, and zip the sources; the same sources give the same bytes."""
    template.PACKED.parent.mkdir(exist_ok=True)
    with replaced(template.PACKED) as beside:
        shutil.copyfile(template.BUILT, beside)
    with replaced(sources.PACKED) as beside:
        files = sources.of(template.CHECKOUT)
        archive.write(beside, [Entry(name, content, None) for name, content in files.items()])
    for path in (template.PACKED, sources.PACKED):
        print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
