'use strict';
// The scene: four pictures a quarter turn apart, seen through a pinhole camera. Each picture is FACE_WIDTH x FACE_HEIGHT pixels at
// a focal length of FOCAL, so that a canvas of twice FOCAL at 90 degrees shows a picture's own pixels.

const FOCAL = 320, FACE_WIDTH = 656, FACE_HEIGHT = 912;

const VERTEX = `#version 300 es
in vec2 corner;
void main() { gl_Position = vec4(corner, 0.0, 1.0); }`;

const FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2DArray;
uniform sampler2DArray faces;
uniform vec4 there;
uniform vec2 size;
uniform float focal, heading, pitch, level;
out vec4 colour;
void main() {
  vec2 at = (gl_FragCoord.xy - size / 2.0) / focal;
  float forward = cos(pitch) - at.y * sin(pitch), up = sin(pitch) + at.y * cos(pitch);
  float yaw = atan(at.x, forward) + heading;
  float quarter = floor(yaw / radians(90.0) + 0.5);
  float local = yaw - quarter * radians(90.0);
  int face = int(mod(quarter, 4.0));
  float slope = up / length(vec2(at.x, forward));
  vec2 spot = vec2(float(${FACE_WIDTH}) / 2.0 + float(${FOCAL}) * tan(local),
                   float(${FACE_HEIGHT}) / 2.0 - float(${FOCAL}) * slope / cos(local));
  vec2 where = spot / vec2(${FACE_WIDTH}.0, ${FACE_HEIGHT}.0);
  colour = there[face] > 0.5 ? vec4(textureLod(faces, vec3(where, float(face)), level).rgb, 1.0) : vec4(0.16, 0.16, 0.17, 1.0);
}`;

class Panorama {
  constructor(canvas) {
    this.canvas = canvas;
    this.heading = 0;
    this.pitch = 0;
    this.fov = 90;
    this.there = [0, 0, 0, 0];
    this.generation = 0;
    const gl = this.gl = canvas.getContext('webgl2', {antialias: false, alpha: false});
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.bindAttribLocation(program, 0, 'corner');
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    this.at = name => gl.getUniformLocation(program, name);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, gl.createTexture());
    gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 4, gl.RGBA8, FACE_WIDTH, FACE_HEIGHT, 4);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }

  // Resolves when all four pictures are drawn; a load that another one overtakes never does.
  async load(panoId, black) {
    const generation = ++this.generation, gl = this.gl;
    this.there = [0, 0, 0, 0];
    this.redraw();
    await Promise.all([0, 1, 2, 3].map(async face => {
      const response = await fetch(`/maps/tile/${panoId}/${face}.jpg`);
      const picture = await createImageBitmap(await response.blob());
      if (generation !== this.generation) return;
      const pixels = black ? new ImageData(FACE_WIDTH, FACE_HEIGHT) : picture;
      gl.texSubImage3D(gl.TEXTURE_2D_ARRAY, 0, 0, 0, face, FACE_WIDTH, FACE_HEIGHT, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
      this.there[face] = 1;
      this.redraw();
    }));
    if (generation !== this.generation) await new Promise(() => {});
    gl.generateMipmap(gl.TEXTURE_2D_ARRAY);
    await this.drawn();
  }

  redraw() {
    if (this.waiting) return this.waiting;
    this.waiting = new Promise(done => requestAnimationFrame(() => { this.waiting = null; this.draw(); done(); }));
    return this.waiting;
  }

  // After the next drawing has reached the screen.
  async drawn() {
    await this.redraw();
    await new Promise(requestAnimationFrame);
  }

  draw() {
    const gl = this.gl, canvas = this.canvas;
    const width = Math.round(canvas.clientWidth * devicePixelRatio), height = Math.round(canvas.clientHeight * devicePixelRatio);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const focal = width / 2 / Math.tan(this.fov * Math.PI / 360);
    gl.viewport(0, 0, width, height);
    gl.uniform4fv(this.at('there'), this.there);
    gl.uniform2f(this.at('size'), width, height);
    gl.uniform1f(this.at('focal'), focal);
    gl.uniform1f(this.at('heading'), this.heading * Math.PI / 180);
    gl.uniform1f(this.at('pitch'), this.pitch * Math.PI / 180);
    gl.uniform1f(this.at('level'), this.there.every(Boolean) ? Math.max(0, Math.log2(FOCAL / focal)) : 0);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // Turns by an angle, smoothly.
  turn(degrees, milliseconds) {
    const start = this.heading, began = performance.now();
    return new Promise(done => {
      const step = now => {
        const share = Math.min(1, Math.max(0, (now - began) / milliseconds));
        this.heading = start + degrees * share * share * (3 - 2 * share);
        this.redraw();
        if (share < 1) { requestAnimationFrame(step); return; }
        this.heading = ((start + degrees) % 360 + 360) % 360;
        this.drawn().then(done);
      };
      requestAnimationFrame(step);
    });
  }
}
