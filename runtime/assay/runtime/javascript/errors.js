/** Errors that a user can cause: one sentence of what is wrong, and in `hint` one of what to do. */

export class AssayError extends Error {
  /**
   * @param {string} message
   * @param {string} [hint]
   */
  constructor(message, hint) {
    super(hint === undefined ? message : `${message}\n${hint}`);
    this.name = new.target.name;
    this.hint = hint;
  }
}

export class ArtifactError extends AssayError {}

export class InterfaceError extends AssayError {}

export class CapacityError extends AssayError {}

export class DeviceError extends AssayError {}
