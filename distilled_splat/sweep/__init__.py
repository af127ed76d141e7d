"""Many scenes and several sizes: teachers once for each scene, the students from them, one table in the end."""
