"""A world with known answers, written in the layouts of NSD, COCO and ADE20K."""
