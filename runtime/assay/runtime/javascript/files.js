/** Files of an artifact: from a folder in Node.js, or below a URL; their digests checked. */

import { ArtifactError } from "./errors.js";

const MANIFEST_SCHEMA = 3;

/** @typedef {(loaded: number, total: number) => void} Progress */
/** @typedef {{ sha256: string, bytes: number }} Digest */

/** Files below a URL. */
class Remote {
  /** @param {URL} base */
  constructor(base) {
    this.base = base;
  }

  /**
   * Write the file `name` of `size` bytes into `target`.
   *
   * @param {string} name
   * @param {(size: number) => Uint8Array} target
   * @param {Progress} [progress]
   */
  async read(name, target, progress) {
    const url = new URL(name.split("/").map(encodeURIComponent).join("/"), this.base);
    let response;
    try {
      response = await fetch(url);
    } catch (error) {
      throw new ArtifactError(`${url} cannot be fetched: ${error}`);
    }
    if (!response.ok || response.body === null) {
      throw new ArtifactError(`${url} cannot be fetched: status ${response.status}.`);
    }
    const chunks = response.body.getReader();
    const into = target(Number(response.headers.get("content-length") ?? 0));
    let position = 0;
    for (;;) {
      const { done, value } = await chunks.read();
      if (done) return position;
      if (position + value.length > into.length) throw new ArtifactError(`${name} is longer than it should be.`);
      into.set(value, position);
      position += value.length;
      progress?.(position, into.length);
    }
  }
}

/** Files in a folder, in Node.js. */
class Folder {
  /** @param {string} path */
  constructor(path) {
    this.path = path;
  }

  /**
   * Write the file `name` into what `target` gives for its size; the bytes that were written.
   *
   * @param {string} name
   * @param {(size: number) => Uint8Array} target
   * @param {Progress} [progress]
   */
  async read(name, target, progress) {
    const { open } = await import("node:fs/promises");
    const { join } = await import("node:path");
    let file;
    try {
      file = await open(join(this.path, name));
      const { size } = await file.stat();
      const into = target(size);
      let position = 0;
      while (position < into.length) {
        const count = Math.min(into.length - position, 1 << 24);
        const { bytesRead } = await file.read(into, position, count, position);
        if (bytesRead === 0) break;
        position += bytesRead;
        progress?.(position, into.length);
      }
      if (size > into.length) throw new ArtifactError(`${name} is longer than it should be.`);
      return position;
    } catch (error) {
      if (error instanceof ArtifactError) throw error;
      throw new ArtifactError(`${name} cannot be read from ${this.path}: ${error}`);
    } finally {
      await file?.close();
    }
  }
}

/** The files of one artifact, named and digested by its manifest. */
export class Files {
  /**
   * @param {string | URL} location
   * @param {boolean} verify
   */
  constructor(location, verify) {
    this.source = source(location);
    this.verify = verify;
    /** @type {Record<string, Digest>} */
    this.digests = {};
    if (verify && globalThis.crypto?.subtle === undefined) {
      throw new ArtifactError(
        "Digests can be checked in a secure context only: HTTPS, or localhost.",
        "Serve the page so, or pass { verify: false }.",
      );
    }
  }

  /** The manifest, checked against its digest; the digests of all other files are known afterwards. */
  async manifest() {
    const bytes = await this.unsized("manifest.json");
    if (this.verify) {
      const line = new TextDecoder().decode(await this.unsized("manifest.sha256"));
      await this.check("manifest.json", bytes, line.slice(0, 64));
    }
    let manifest;
    try {
      manifest = JSON.parse(new TextDecoder().decode(bytes));
    } catch (error) {
      throw new ArtifactError(`manifest.json is damaged: ${error}`);
    }
    this.digests = manifest.files ?? {};
    return manifest;
  }

  /**
   * The file called `name`, put where `target` says for its size, by default into new memory.
   *
   * @param {string} name
   * @param {(size: number) => Uint8Array<ArrayBuffer>} [target]
   * @param {Progress} [progress]
   */
  async read(name, target = (size) => new Uint8Array(size), progress) {
    const digest = this.digests[name];
    if (digest === undefined) throw new ArtifactError(`The artifact has no file ${name}.`);
    const bytes = target(digest.bytes);
    const count = await this.source.read(name, () => bytes, progress);
    if (count !== digest.bytes) {
      throw new ArtifactError(`${name} has ${count} bytes; the manifest says ${digest.bytes}.`);
    }
    if (this.verify) await this.check(name, bytes, digest.sha256);
    return bytes;
  }

  /** A small file whose size is not known before. @private */
  async unsized(/** @type {string} */ name) {
    const limit = 1 << 24;
    const bytes = new Uint8Array(limit);
    return bytes.slice(0, await this.source.read(name, () => bytes));
  }

  /**
   * @private
   * @param {string} name
   * @param {Uint8Array<ArrayBuffer>} bytes
   * @param {string} expected
   */
  async check(name, bytes, expected) {
    const digest = new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", bytes));
    const found = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== expected) throw new ArtifactError(`${name} is damaged: its digest is not the manifest's.`);
  }
}

/** @param {string | URL} location */
function source(location) {
  const node = globalThis.process?.versions?.node !== undefined;
  const text = String(location);
  if (node && !/^(https?|file):/.test(text)) return new Folder(text);
  if (text.startsWith("file:")) return new Folder(decodeURIComponent(new URL(text).pathname));
  const base = new URL(text, globalThis.document?.baseURI ?? globalThis.location?.href);
  return new Remote(base.pathname.endsWith("/") ? base : new URL(`${base.pathname}/`, base));
}

/**
 * The manifest, of the schema that this loader reads.
 *
 * @param {Files} files
 */
export async function readManifest(files) {
  const manifest = await files.manifest();
  if (manifest.schema_version !== MANIFEST_SCHEMA) {
    throw new ArtifactError(
      `The artifact has manifest schema ${manifest.schema_version}; this loader reads ${MANIFEST_SCHEMA} only.`,
      "Use the loader that came with the artifact.",
    );
  }
  return manifest;
}
