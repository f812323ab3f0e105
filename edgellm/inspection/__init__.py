"""What the files of packages say, without loading them: graphs, matrices, memory, differences."""
