// Who calls, according to the access token that the gate passes on. Needs jose 6.
import { readFile, stat } from "node:fs/promises";
import { createLocalJWKSet, decodeProtectedHeader, errors, jwtVerify } from "jose";

const LIFE = 900, SKEW = 10, KEYS_AGE = 3600;

/** Not a valid token: answer 401 and say nothing more. */
export class Refused extends Error {}

export class Portcullis {
  constructor({ issuer, audience, keysFile, algorithm = "RS256" }) {
    Object.assign(this, { issuer, audience, keysFile, algorithm });
  }

  /** `headers` as in node's `request.headers`: lower-case names. Resolves to the claims. */
  async caller(headers, { scope = "app", now = Date.now() / 1000 } = {}) {
    const [, token] = /^(?:Bearer|DPoP) ([\w-]+\.[\w-]+\.[\w-]+)$/i.exec(headers.authorization ?? "") ?? [];
    if (!token) throw new Refused("authorization");
    if ((await stat(this.keysFile)).mtimeMs / 1000 < now - KEYS_AGE) throw new Error("the key set is too old");
    const keys = createLocalJWKSet(JSON.parse(await readFile(this.keysFile, "utf8")));
    let claims;
    try {
      if (Object.keys(decodeProtectedHeader(token)).sort().join() !== "alg,kid,typ") throw new Refused("header");
      ({ payload: claims } = await jwtVerify(token, keys, {
        algorithms: [this.algorithm],
        typ: "at+jwt",
        issuer: this.issuer,
        audience: this.audience,
        clockTolerance: 0,
        currentDate: new Date(now * 1000),
        requiredClaims: ["sub", "client_id", "jti", "scope", "tenant", "kind", "iat", "exp"],
      }));
    } catch (error) {
      if (error instanceof errors.JOSEError || error instanceof TypeError) throw new Refused(error.message);
      throw error;
    }
    const { iat, exp, aud } = claims;
    if (typeof aud !== "string") throw new Refused("aud");
    if (!Number.isInteger(iat) || !Number.isInteger(exp) || exp <= now || iat > now + SKEW || exp - iat > LIFE) throw new Refused("time");
    if (typeof claims.scope !== "string" || !claims.scope.split(" ").includes(scope)) throw new Refused("scope");
    // The gate sets these itself. Another value means that the request did not come through it.
    for (const [name, claim] of [["subject", "sub"], ["tenant", "tenant"], ["client", "client_id"]]) {
      if (headers[`x-portcullis-${name}`] !== claims[claim]) throw new Refused(`x-portcullis-${name}`);
    }
    return claims;
  }
}
