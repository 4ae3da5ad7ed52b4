"""Where frames come from: videos, folders, bags, labelled sequences, clips, and the generated scene."""
