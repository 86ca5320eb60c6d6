// Uses the client that hey-api generates.
//
//	node hey-api.mjs ADDRESS IMAGE
//
// It does and prints the same as command ogen. Of the media types of a request hey-api has
// the types of JSON alone, so that the image is sent as base64.
import { readFile } from 'node:fs/promises';
import { client } from './hey-api/client.gen.js';
import { getImage, postImage } from './hey-api/sdk.gen.js';

const [address, file] = process.argv.slice(2);
client.setConfig({ baseUrl: address });
const image = await readFile(file, 'base64');

const posted = await postImage({ query: { pipeline: 'codes' }, body: { image } });
if (posted.data === undefined || posted.data instanceof Blob) {
  throw new Error(`post an image: ${posted.response?.status}`);
}
const got = await getImage({ path: { id: posted.data.id } });
if (got.data === undefined) {
  throw new Error(`get the result: ${got.error?.code}`);
}
const rejected = await postImage({ query: { pipeline: 'nosuch' }, body: { image } });
if (rejected.error === undefined) {
  throw new Error(`post to no pipeline: ${rejected.response?.status}`);
}
console.log(got.data.status, got.data.regions?.length, rejected.error.code);
