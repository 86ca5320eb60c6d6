// Uses the types that openapi-typescript generates, with openapi-fetch.
//
//	node openapi-typescript.mjs ADDRESS IMAGE
//
// It does and prints the same as command ogen.
import { readFile } from 'node:fs/promises';
import createClient from 'openapi-fetch';
import type { paths } from './openapi-typescript.d.ts';

const [address, file] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: address });
const image = await readFile(file);

const post = (pipeline: string) =>
  client.POST('/v1/images', {
    params: { query: { pipeline } },
    headers: { 'Content-Type': 'image/png' },
    body: '', // its type is that of all media types: the bytes are given to bodySerializer
    bodySerializer: () => image,
  });

const posted = await post('codes');
if (posted.data === undefined || typeof posted.data === 'string') {
  throw new Error(`post an image: ${posted.response.status}`);
}
const got = await client.GET('/v1/images/{id}', { params: { path: { id: posted.data.id } } });
if (got.data === undefined) {
  throw new Error(`get the result: ${got.response.status} ${got.error.code}`);
}
const rejected = await post('nosuch');
if (rejected.error === undefined) {
  throw new Error(`post to no pipeline: ${rejected.response.status}`);
}
console.log(got.data.status, got.data.regions?.length, rejected.error.code);
